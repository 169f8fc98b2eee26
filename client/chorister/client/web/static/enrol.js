// Enrolment, first part: what is allowed, and the sentences, one by one.

import { button, capital, checkbox, checksTable, complain, field, h, quiet, say } from "./dom.js";
import { listen } from "./microphone.js";
import { send, upload } from "./server.js";
import { result, signing } from "./statement.js";
import { meter, outline } from "./wave.js";

const OWN = "the speaker, on this device alone";
let step = "terms";
let at = 0;
// From the moment that the microphone is asked for: { close }, and once it is heard { stop, close }.
let recording = null;

export function enrol(page) {
  const { draft } = page.state;
  const job = page.state.jobs.findLast((one) => one.kind === "enrol");
  const heading = h("h2", { tabIndex: -1 }, "Enrol your voice");
  if (step === "result") {
    if (job?.result) return result(page, job.result, () => { step = draft ? "recordings" : "terms"; page.refresh(); });
    // Somebody looked elsewhere meanwhile and is back before it is done.
    if (job && !["failed", "cancelled"].includes(job.state)) return [heading, h("p", { class: "quiet", id: "checking" }, "Everything is being checked.")];
    step = "statement";
  }
  if (!draft) step = "terms";
  const parts = { terms, recordings, statement };
  return [
    heading,
    steps(page),
    parts[step](page)];
}

export function stopRecording() {
  recording?.close();
  recording = null;
}

export const isRecording = () => recording !== null;

function go(page, to) {
  stopRecording();
  quiet();
  step = to;
  return page.refresh().then(() => document.querySelector("#main h3")?.focus());
}

function steps(page) {
  const { draft } = page.state;
  const all = [["terms", "What you allow", true], ["recordings", "Recordings", Boolean(draft)],
    ["statement", "Say it and sign", Boolean(draft?.speech.passed)]];
  return h("ol", { class: "stages", "aria-label": "Steps" }, all.map(([name, text, open]) =>
    h("li", {}, button(text, () => go(page, name), {
      class: "plain", id: `step-${name}`, disabled: !open, "aria-current": name === step ? "step" : null,
    }))));
}

function terms(page) {
  const { choices, draft, consent } = page.state;
  const known = draft ?? { name: "", controller: consent?.controller ?? OWN, locale: "en", jurisdiction: "EU", days: 365, purposes: ["training", "conversion"] };
  const input = (text, more = {}) => h("input", { type: "text", value: text, required: true, maxlength: "80", ...more });
  const name = input(known.name, { autocomplete: "name" });
  const controller = input(known.controller);
  const law = input(known.jurisdiction);
  const days = input(String(known.days), { type: "number", min: "1", max: "3660" });
  const locale = h("select", {}, choices.locales.map((one) =>
    h("option", { value: one.name, selected: one.name === known.locale }, one.language)));
  const boxes = choices.purposes.map((one) => checkbox(`purpose-${one.name}`, capital(one.text),
    { value: one.name, checked: known.purposes.includes(one.name) }));
  return h("form", { class: "form", onsubmit: async (event) => {
    event.preventDefault();
    const purposes = boxes.map((box) => box.querySelector("input")).filter((box) => box.checked).map((box) => box.value);
    const found = await page.act(() => send("enrol/begin", {
      name: name.value, controller: controller.value, purposes, locale: locale.value,
      jurisdiction: law.value, days: Number(days.value),
    }));
    if (found) await go(page, "recordings");
  } },
    h("h3", { tabIndex: -1 }, "What you allow"),
    consent && h("p", { class: "notice" }, "A voice is enrolled already. Enrolling again replaces its recordings and its consent."),
    field("name", "Your name, as you say it", name, "It stays in the vault; no receipt and no server sees it."),
    field("controller", "Who may use your voice", controller),
    h("fieldset", {}, h("legend", {}, "What for"), boxes),
    field("locale", "Language of the statement", locale, "Words are checked out of the box in English; other languages need a recogniser on this machine."),
    h("div", { class: "pair" },
      field("days", "For how many days", days),
      field("jurisdiction", "Whose law", law)),
    h("p", {}, h("button", { type: "submit", class: "main", id: "terms-done" }, "Go on to the recordings")));
}

function recordings(page) {
  const { draft } = page.state;
  at = Math.min(at, draft.prompts.length - 1);
  const take = draft.takes[at];
  const enough = draft.speech;
  const move = (to) => { at = to; stopRecording(); return page.refresh().then(() => document.querySelector("#main h3")?.focus()); };
  return h("div", {},
    h("h3", { tabIndex: -1 }, `Sentence ${at + 1} of ${draft.prompts.length}`),
    h("blockquote", { class: "prompt", lang: draft.locale, id: "prompt" }, draft.prompts[at]),
    recorder(page, { id: "take", label: "this sentence", take, where: `enrol/take/${at}`, sound: `/take/${at}` }),
    h("p", { class: "moves" },
      button("Back", () => move(at - 1), { id: "back", disabled: at === 0 }),
      button("Next sentence", () => move(at + 1), { id: "next", disabled: at === draft.prompts.length - 1, class: take ? "main" : "" })),
    h("ol", { class: "takes", "aria-label": "Sentences" }, draft.prompts.map((text, number) => {
      const one = draft.takes[number];
      const good = one?.checks.every((check) => check.passed);
      const word = one ? (good ? "recorded" : "recorded, with a weakness") : "not recorded";
      return h("li", {}, button(String(number + 1), () => move(number), {
        class: `dot ${one ? (good ? "good" : "bad") : ""}`, id: `dot-${number}`,
        "aria-label": `Sentence ${number + 1}, ${word}`, "aria-current": number === at ? "step" : null,
      }));
    })),
    h("p", { id: "speech" }, `${enough.figure.toFixed(0)} s of speech so far. ${enough.limit} s is the least; a minute is good, three are better.`),
    h("p", { class: "moves" },
      button("Go on to the statement", () => go(page, "statement"), { id: "recordings-done", disabled: !enough.passed, class: enough.passed ? "main" : "" }),
      button("Drop this enrolment", async () => { await page.act(() => send("enrol/discard"), "Dropped; nothing was stored."); step = "terms"; at = 0; await page.refresh(); }, { class: "plain", id: "drop" })));
}

function statement(page) {
  return signing(page, recorder, async (found) => {
    if (found) { step = "result"; page.watch(); }
  });
}

// The one way to record: a button, what is heard, what came of it, and once more if wanted.
export function recorder(page, { id, label, take, where, sound, hint }) {
  const box = h("div", { class: "recorder" });
  const start = button(take ? "Record again" : "Record", begin, { id: `${id}-record`, class: take ? "" : "main" });
  async function begin() {
    quiet();
    stopRecording();
    start.disabled = true;
    const shown = meter();
    const asked = { close() {} };
    recording = asked;
    try {
      const heard = await listen(shown.add, end);
      if (recording !== asked) { heard.close(); return; } // somebody went elsewhere meanwhile
      recording = heard;
    } catch (error) {
      if (recording === asked) recording = null;
      start.disabled = false;
      complain(error);
      return;
    }
    box.replaceChildren(shown.element, h("p", {}, button("Stop", end, { id: `${id}-stop`, class: "main recording" })));
    box.querySelector("button").focus();
    say(`Recording ${label}.`);
  }
  async function end() {
    if (!recording?.stop) return;
    const current = recording;
    recording = null;
    const data = await current.stop();
    const found = await page.act(() => upload(where, data, "audio/wav"));
    if (found) say(`Recorded ${label}. The figures are below.`);
    document.getElementById(`${id}-record`)?.focus();
  }
  box.append(...(take ? [
    outline(take.peaks, `Waveform of ${label}, ${take.seconds} seconds`),
    h("audio", { controls: true, preload: "none", src: `${sound}?v=${take.seconds}`, "aria-label": `Listen to ${label}` }),
    h("p", { class: "verdict-line" }, take.checks.every((one) => one.passed)
      ? h("span", { class: "mark good" }, "Good")
      : h("span", { class: "mark bad" }, "Record it again, or it will be refused"),
    ` ${take.seconds.toFixed(1)} s, ${take.speech_s.toFixed(1)} s of speech`),
    h("details", { open: !take.checks.every((one) => one.passed) }, h("summary", {}, "Figures"),
      checksTable(take.checks.map((one) => ({ ...one, subject: "" })))),
  ] : [h("p", { class: "quiet" }, hint ?? "Read it calmly, in a quiet room. Press Record, read, press Stop.")]),
  h("p", {}, start));
  return box;
}
