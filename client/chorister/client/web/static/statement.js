// Enrolment, second part: the sentence with the digits of this moment, the signature, the outcome.

import { $, button, checksTable, facts, h, say } from "./dom.js";
import { receiptLinks } from "./papers.js";
import { send } from "./server.js";

let clock = null;

export function signing(page, recorder, done) {
  const { draft } = page.state;
  const shown = draft.challenge;
  const read = [
    h("h3", { tabIndex: -1 }, "Read it, say it, sign it"),
    facts([
      ["Who may use your voice", draft.controller],
      ["What for", draft.purpose_texts.join("; ")],
      ["What it is", "recordings of your voice: biometric data, specially protected"],
      ["Where it is kept", "encrypted, in the vault on this device"],
      ["For how long", `${draft.days} days, or until you withdraw`],
      ["Whose law", draft.jurisdiction]]),
    h("details", {}, h("summary", {}, "Your rights"), h("ul", {}, draft.rights.map((text) => h("li", {}, text))))];
  clearInterval(clock);
  if (!shown || shown.left_s <= 0) {
    return h("div", {}, read,
      h("p", {}, shown ? "The digits that were shown have expired. " : "",
        "Now say that you allow this. You will see a sentence with six digits, which are good for a few minutes."),
      h("p", {}, button("Show the sentence", () => page.act(() => send("enrol/challenge"), "The sentence is shown."), { id: "ask", class: "main" })));
  }
  const left = h("span", { id: "left" }, "");
  countdown(left, shown.left_s, () => page.refresh());
  return h("div", {}, read,
    h("h3", {}, "Read this aloud"),
    h("blockquote", { class: "prompt", lang: draft.locale, id: "sentence" }, shown.sentence),
    h("p", { class: "digits", role: "group", "aria-label": "The digits" }, shown.digits.map((digit) => [h("span", {}, String(digit)), " "])),
    h("p", { class: "quiet" }, "Say the digits one by one. Time left: ", left),
    recorder(page, { id: "statement", label: "the statement", take: draft.statement, where: `enrol/statement/${shown.id}`, sound: "/take/statement" }),
    h("p", { class: "moves" },
      button("Sign and enrol", async () => done(await page.act(() => send("enrol/sign", { challenge: shown.id }), "Checking.")),
        { id: "sign", class: draft.statement ? "main" : "", disabled: !draft.statement }),
      button("Other digits", () => page.act(() => send("enrol/challenge"), "Other digits are shown."), { id: "other", class: "plain" })),
    h("p", { class: "quiet" }, "Everything is checked first. Only if all of it passes is the consent signed with this device's key, and your voice stored."));
}

export function result(page, found, back) {
  if (!found.enrolled) {
    const failed = found.checks.filter((one) => !one.passed);
    return [
      h("h2", { tabIndex: -1 }, "Not enrolled"),
      h("p", { class: "lead" }, failed.length === 1 ? "One check failed; nothing was stored. Your takes are still here." : `${failed.length} checks failed; nothing was stored. Your takes are still here.`),
      h("ul", { class: "warnings" }, failed.map((one) => h("li", {}, h("strong", {}, `${one.subject}: ${one.name}. `), `${one.reason}. ${one.advice}.`))),
      h("p", {}, button("Back to the enrolment", back, { id: "back-to-enrolment", class: "main" })),
      h("details", {}, h("summary", {}, "All checks"), checksTable(found.checks))];
  }
  return [
    h("h2", { tabIndex: -1 }, "Enrolled and signed"),
    h("p", { class: "lead" }, `Your voice is in the vault, in ${found.segments} training segments, under the consent ${found.consent_sha256.slice(0, 16)}.`),
    !found.words_checked && h("p", { class: "notice" }, "The words of the statement were not checked; the record says so."),
    receiptLinks(page.state),
    h("p", { class: "moves" }, button("Make my voice", () => page.go("voices"), { id: "to-voices", class: "main" }), button("See the consent", () => page.go("consent"))),
    h("h3", {}, "What was checked"),
    h("p", { class: "quiet" }, "Of each check, what came nearest to failing."),
    checksTable(found.summary),
    h("details", {}, h("summary", {}, "Every recording"), checksTable(found.checks))];
}

function countdown(place, left_s, expired) {
  const end = Date.now() + 1000 * left_s;
  const show = () => {
    const left = Math.max(Math.round((end - Date.now()) / 1000), 0);
    place.textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
    if (left === 60) say("One minute is left.");
    if (left <= 0 || !$("left")) { clearInterval(clock); if (left <= 0) expired(); }
  };
  clock = setInterval(show, 1000);
  place.textContent = `${Math.floor(left_s / 60)}:${String(left_s % 60).padStart(2, "0")}`;
}
