// The overview, and voices: make one, and listen to source and conversions side by side.

import { button, checkbox, complain, field, h } from "./dom.js";
import { recorder } from "./enrol.js";
import { send, upload } from "./server.js";
import { outline } from "./wave.js";

const NAMES = {
  pitch_st: ["Pitch", "", " semitones"], formant: ["Formants", "× ", ""], rate: ["Speed", "× ", ""],
  energy_db: ["Energy", "", " dB"], intonation: ["Intonation", "× ", ""], breathiness: ["Breathiness", "", ""],
};
const STEPS = { pitch_st: 0.5, formant: 0.01, rate: 0.05, energy_db: 0.5, intonation: 0.05, breathiness: 0.05 };
let chosen = "";

export function overview(page) {
  const { consent, studio, device } = page.state;
  if (!consent) {
    return [
      h("h2", { tabIndex: -1 }, "No voice is enrolled here yet"),
      h("p", { class: "lead" }, "Say what may be done with your voice and by whom, read a few sentences, and sign."),
      h("p", {}, button("Enrol my voice", () => page.go("enrol"), { id: "to-enrol", class: "main" })),
      h("p", {}, "Nothing leaves this machine, and you can withdraw at any time.")];
  }
  const own = studio.voices.filter((one) => one.sealed).length;
  return [
    h("h2", { tabIndex: -1 }, consent.valid ? "Your voice is enrolled" : "Your consent has ended"),
    h("p", { class: "lead" }, consent.valid ? `${consent.controller} may use it until ${consent.ends}.` : `It ended on ${consent.ends}. Renew it, or withdraw to delete everything.`),
    h("ul", {}, consent.purposes.map((one) => h("li", {}, one.text))),
    h("p", { class: "moves" },
      button(own ? "Listen to conversions" : "Make my voice", () => page.go("voices"), { class: "main", id: "to-voices" }),
      button("See the consent", () => page.go("consent")),
      button("See the budget", () => page.go("budget"))),
    h("p", { class: "quiet" }, `This device is ${device}. To withdraw, open Consent.`)];
}

export function voices(page) {
  const { studio, consent } = page.state;
  return [
    h("h2", { tabIndex: -1 }, "Voices"),
    making(page, studio, consent),
    h("h3", {}, "Listen side by side"),
    sources(page, studio),
    converting(page, studio),
    compared(page, studio)];
}

function making(page, studio, consent) {
  const may = consent?.valid && ["training", "conversion"].every((name) => consent.purposes.some((one) => one.name === name));
  const name = h("input", { type: "text", value: "me", maxlength: "40", required: true });
  const steps = h("input", { type: "number", value: String(studio.steps), min: "1", max: "2000", required: true });
  const own = studio.voices.filter((one) => one.sealed);
  return h("section", {},
    own.length > 0 && h("ul", { class: "files" }, own.map((one) => h("li", {}, h("strong", {}, one.name), " ", h("span", { class: "quiet" }, `${one.path}, sealed`)))),
    may ? h("form", { class: "line", onsubmit: (event) => {
      event.preventDefault();
      page.act(() => send("voices/make", { name: name.value, steps: Number(steps.value) }), "Training has begun.");
    } },
      field("voice-name", own.length ? "Make another voice file, called" : "Make your voice file, called", name),
      field("voice-steps", "Training steps at most", steps),
      h("button", { type: "submit", id: "make-voice", class: own.length ? "" : "main" }, "Make it"))
      : h("p", { class: "notice" }, consent ? "The consent does not cover making a voice: it takes training and conversion." : "Enrol first: a voice is made under your consent."),
    may && h("p", { class: "hint" }, `Trained on this machine from what you enrolled; it takes minutes, and can be cancelled. Sealed: it opens with this vault alone. Files go to ${studio.folder}.`));
}

function sources(page, studio) {
  const all = studio.sounds.filter((one) => !one.of);
  if (!all.some((one) => one.id === chosen)) chosen = all.at(-1)?.id ?? "";
  const file = h("input", { type: "file", accept: ".wav,.flac,.ogg,.opus,.mp3,audio/*", onchange: async () => {
    const one = file.files[0];
    if (!one) return;
    const found = await page.act(() => upload(`voices/source?name=${encodeURIComponent(one.name)}`, one, "application/octet-stream"), "The recording is here.");
    if (found) { chosen = found.sound; await page.refresh(); }
  } });
  return h("div", { class: "pair" },
    field("source-file", "A recording to convert", file, "wav, flac, ogg, opus or mp3. It stays on this machine."),
    h("div", { class: "field" }, h("p", { class: "label" }, "or say something now"),
      recorder(page, { id: "source", label: "what you say", take: null, where: "voices/source?name=microphone", sound: "",
        hint: "A sentence or two. Press Record, speak, press Stop." })));
}

function converting(page, studio) {
  const all = studio.sounds.filter((one) => !one.of);
  if (!all.length) return null;
  if (!studio.voices.length) return h("p", { class: "notice" }, "There is no voice to convert to yet. Make yours, or name others with --voice when you start the page.");
  const select = h("select", { onchange: () => { chosen = select.value; } }, all.map((one) => h("option", { value: one.id, selected: one.id === chosen }, `${one.name} (${one.seconds.toFixed(1)} s)`)));
  select.dataset.fresh = "";
  const boxes = studio.voices.map((one, at) => checkbox(`voice-${one.id}`, one.sealed ? one.name : `${one.name} (plain file)`, { value: one.id, checked: at === 0 }));
  const sliders = studio.controls.map((one) => slider(one));
  return h("form", { class: "form", id: "convert-form", onsubmit: async (event) => {
    event.preventDefault();
    const picked = boxes.map((box) => box.querySelector("input")).filter((box) => box.checked).map((box) => box.value);
    if (!picked.length) { complain({ parts: { rule: "A conversion is into a voice.", found: "none chosen", advice: "Choose one or more." } }); return; }
    const controls = Object.fromEntries(sliders.map(({ input }) => [input.name, Number(input.value)]));
    await page.act(async () => {
      let found = null;
      for (const voice of picked) found = await send("voices/convert", { source: select.value, voice, ...controls });
      return found;
    }, "Converting.");
  } },
    field("source", "Which recording", select),
    h("fieldset", {}, h("legend", {}, "Into which voices"), boxes),
    h("details", {}, h("summary", {}, "Controls"), sliders.map(({ element }) => element),
      button("All neutral", () => sliders.forEach(({ input, neutral }) => { input.value = neutral; input.dispatchEvent(new Event("input")); }), { class: "plain" })),
    h("p", {}, h("button", { type: "submit", class: "main", id: "convert" }, "Convert")));
}

function slider({ name, low, high, neutral, what }) {
  const [title, before, after] = NAMES[name];
  const shown = h("output", { for: `control-${name}` }, "");
  const input = h("input", { type: "range", name, min: String(low), max: String(high), step: String(STEPS[name]), value: String(neutral) });
  const show = () => {
    shown.textContent = `${before}${input.value}${after}`;
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  input.addEventListener("input", show);
  show();
  const row = field(`control-${name}`, title, input);
  row.classList.add("slider");
  row.title = what;
  row.append(shown);
  return { element: row, input, neutral: String(neutral) };
}

function compared(page, studio) {
  const all = studio.sounds.filter((one) => !one.of);
  return all.toReversed().map((source) => {
    const made = studio.sounds.filter((one) => one.of === source.id);
    return h("section", { class: "compare", "aria-label": source.name },
      h("h4", {}, source.name, " ", h("span", { class: "quiet" }, `${source.seconds.toFixed(1)} s`)),
      h("div", { class: "sides" }, clip(page, source, "Source"), made.map((one) => clip(page, one, one.name))));
  });
}

function clip(page, one, title) {
  const player = h("audio", { controls: true, preload: "none", src: `/sound/${one.id}`, "aria-label": `Listen: ${title}` });
  // One at a time: two voices at once cannot be compared.
  player.addEventListener("play", () => { for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause(); });
  return h("div", { class: "clip" },
    h("p", { class: "what" }, title),
    h("p", { class: "which" }, one.of ? one.made_with || "no controls" : "as it was recorded"),
    outline(one.peaks, `Waveform: ${title}`),
    player,
    h("p", { class: "small" }, one.of ? h("a", { href: `/sound/${one.id}`, download: `${one.name}.wav` }, "Save") : null, " ",
      button("Remove", () => page.act(() => send("voices/remove", { sound: one.id }), "Removed."), { class: "plain", id: `remove-${one.id}`, "aria-label": `Remove: ${title}` })));
}
