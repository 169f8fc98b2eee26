// Consent, budget and ledger: to read, to print, to change, to end.

import { button, capital, checkbox, checksTable, facts, field, h } from "./dom.js";
import { get, send } from "./server.js";

export function receiptLinks(state) {
  if (!state.receipts.length) return null;
  const names = { consent: "Receipt of the consent", withdrawal: "Receipt of the withdrawal" };
  return h("ul", { class: "links" }, state.receipts.map((name) => h("li", {},
    h("a", { href: `/receipt/${name}`, target: "_blank", rel: "noopener" }, names[name]), " ",
    h("a", { href: `/receipt/${name}/signed`, download: `receipt-${name}.json`, class: "quiet" }, "signed form (JSON)"))));
}

export function consent(page) {
  const { consent: given, choices } = page.state;
  if (!given) return [h("h2", { tabIndex: -1 }, "No consent was given here yet"), h("p", {}, button("Enrol my voice", () => page.go("enrol"), { class: "main" }))];
  return [
    h("h2", { tabIndex: -1 }, given.valid ? "Your consent" : "Your consent has ended"),
    facts(given.facts),
    receiptLinks(page.state),
    h("p", {}, button("Print this page", () => window.print(), { class: "plain" })),
    given.files.length > 0 && [h("h3", {}, "Voice files under it"), h("ul", { class: "files" }, given.files.map((one) =>
      h("li", {}, h("code", {}, one.path), ` ${one.plain ? "plain, cannot be recalled" : "sealed"}${one.there ? "" : ", not there any more"}`)))],
    given.checks.length > 0 && h("details", {}, h("summary", {}, "What was checked when you gave it"), checksTable(given.checks)),
    h("details", {}, h("summary", {}, "Your rights"), h("ul", {}, given.rights.map((text) => h("li", {}, text)))),
    narrowing(page, given, choices),
    renewing(page),
    h("h3", { id: "withdraw-title" }, "Withdraw"),
    h("p", {}, `This destroys the vault's key and its ${given.items} items, and deletes the voice files above. Servers are told. Nobody asks for a reason, and it cannot be taken back.`),
    withdrawal(page)];
}

function narrowing(page, given) {
  if (given.purposes.length < 2) return null;
  const boxes = given.purposes.map((one) => checkbox(`keep-${one.name}`, capital(one.text), { value: one.name, checked: true }));
  return [h("h3", {}, "Allow less"), h("form", { class: "form", onsubmit: (event) => {
    event.preventDefault();
    const purposes = boxes.map((box) => box.querySelector("input")).filter((box) => box.checked).map((box) => box.value);
    page.act(() => send("consent/narrow", { purposes }), "Fewer purposes are allowed now.");
  } },
    h("fieldset", {}, h("legend", {}, "What stays allowed"), boxes),
    h("p", {}, h("button", { type: "submit", id: "narrow" }, "Allow only these")))];
}

function renewing(page) {
  const days = h("input", { type: "number", min: "1", max: "3660", value: "365", required: true });
  return [h("h3", {}, "Allow it for longer"), h("form", { class: "line", onsubmit: (event) => {
    event.preventDefault();
    page.act(() => send("consent/renew", { days: Number(days.value) }), "The consent was renewed.");
  } },
    field("days", "Days from today", days), h("button", { type: "submit", id: "renew" }, "Renew"))];
}

export function withdrawal(page) {
  const locked = page.state.vault !== "open";
  const word = h("input", { type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: false, required: true });
  const secret = h("input", { type: "password", autocomplete: "current-password" });
  return h("form", { class: "form danger", onsubmit: async (event) => {
    event.preventDefault();
    await page.act(() => send("consent/withdraw", { word: word.value, passphrase: secret.value }), "Withdrawn. The receipt is below.");
  } },
    locked && page.state.needs_passphrase && field("withdraw-passphrase", "Passphrase of the vault", secret),
    field("word", "Type the word withdraw to go on", word),
    h("p", {}, h("button", { type: "submit", class: "bad", id: "withdraw" }, "Withdraw my consent and destroy my voice")));
}

export async function budget() {
  const found = await get("/budget");
  if (!found.budgets.length) {
    return [h("h2", { tabIndex: -1 }, "Nothing is spent"),
      h("p", { class: "lead" }, "No federation was joined here: nothing of your voice was ever sent to anybody, so there is no budget to spend."),
      h("p", { class: "quiet" }, "A budget says how much could at most be learnt about you from what your device contributed. It begins with the first round.")];
  }
  return [
    h("h2", { tabIndex: -1 }, "What your voice has cost"),
    h("p", {}, "Epsilon bounds what anybody can tell from everything that was contributed; the smaller, the less. It is kept for two units, which are never added."),
    found.budgets.map((one) => [
      found.budgets.length > 1 && h("h3", {}, one.where),
      one.problems.map((text) => h("p", { class: "notice" }, text)),
      accounts(one),
      h("p", { class: "quiet" }, `${one.finished} charged rounds came to a sum, ${one.unfinished} did not, as far as is known here.`)]),
    found.together && h("p", { class: "notice" }, `Together, if all of it was trained on the same segments: epsilon ${epsilon(found.together.epsilon)} for one segment at delta ${found.together.delta}. Each budget is refused by its own limit; nothing limits this.`)];
}

// What no figure bounds is not nothing.
const epsilon = (figure, absent = "unbounded") => (figure === null ? absent : Number(figure).toFixed(3));

function accounts(one) {
  const cell = (name, text) => h("td", { class: "n", "data-name": name }, text);
  const names = { segment: "One training segment", speaker: "You as a speaker" };
  const heads = ["Protects", "Spent", "Reserved", "Left", "Limit", "Delta", "After the next round", "Rounds left"];
  return h("div", { class: "scroll" }, h("table", { class: "budget" },
    h("thead", {}, h("tr", {}, heads.map((text, at) => h("th", { scope: "col", class: at ? "n" : "" }, text)))),
    h("tbody", {}, one.rows.map((row) => h("tr", {},
      h("th", { scope: "row", class: "wrap" }, names[row.account] ?? row.account, row.label && h("span", { class: "why" }, row.label)),
      [epsilon(row.spent), epsilon(row.reserved), epsilon(row.left, row.epsilon_max === null ? "no limit" : "none"), epsilon(row.epsilon_max, "none")]
        .map((text, at) => cell(heads[at + 1], text)),
      cell(heads[5], String(row.delta)), cell(heads[6], epsilon(row.next_round)),
      cell(heads[7], row.rounds_left === null ? "no end" : String(row.rounds_left)))))));
}

export async function ledger(page) {
  const found = await get("/ledger");
  return [
    h("h2", { tabIndex: -1 }, "Ledger"),
    h("p", {}, found.broken ? "" : `${found.count} entries, each chained to the one before; the chain holds.`,
      " Every use of your voice that was granted or refused is here. It holds no name and nothing of your voice."),
    found.broken && h("p", { class: "notice" }, `The chain does not hold: ${found.broken}`),
    h("div", { class: "scroll" }, h("table", { id: "ledger" },
      h("thead", {}, h("tr", {}, ["No.", "Time", "What", "Details"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, found.entries.map((one) => h("tr", {},
        h("td", { class: "n" }, String(one.index)), h("td", { class: "tight" }, one.time), h("td", {}, one.kind),
        h("td", {}, one.fields.map(([name, text]) => h("span", { class: "pairing" }, h("span", { class: "quiet" }, `${name} `), `${text} `))))))))];
}
