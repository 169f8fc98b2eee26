// Elements are made by name and text alone: nothing on this page is ever parsed as HTML.

export function h(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

export const $ = (id) => document.getElementById(id);

export function say(text) {
  const live = $("live");
  live.textContent = "";
  // A change after a moment is read aloud even where the text is the same as before.
  setTimeout(() => { live.textContent = text; }, 60);
}

export function complain(error) {
  const parts = error.parts ?? { rule: String(error.message ?? error), found: "", advice: "" };
  $("alert").replaceChildren(
    h("div", { class: "trouble" },
      h("p", {}, h("strong", {}, parts.rule), parts.found ? ` Found: ${parts.found}. ` : " ", parts.advice),
      h("button", { type: "button", class: "plain", onclick: quiet }, "Dismiss")));
  $("alert").scrollIntoView({ block: "nearest" });
}

export function quiet() { $("alert").replaceChildren(); }

export function field(id, label, input, hint) {
  input.id = id;
  if (hint) input.setAttribute("aria-describedby", `${id}-hint`);
  return h("div", { class: "field" }, h("label", { for: id }, label), input,
    hint && h("p", { class: "hint", id: `${id}-hint` }, hint));
}

export function checkbox(id, label, options = {}) {
  return h("label", { class: "check", for: id }, h("input", { type: "checkbox", id, ...options }), h("span", {}, label));
}

export function button(text, act, options = {}) {
  return h("button", { type: "button", onclick: act, ...options }, text);
}

// What was typed and where the focus was outlive a redrawing of the same view.
export function redraw(place, children) {
  const kept = new Map();
  for (const input of place.querySelectorAll("input[id], select[id]")) {
    if (input.type !== "file") kept.set(input.id, input.type === "checkbox" ? input.checked : input.value);
  }
  const focus = place.contains(document.activeElement) ? document.activeElement.id : "";
  place.replaceChildren(...children.flat(Infinity).filter(Boolean));
  for (const [id, value] of kept) {
    const input = $(id);
    if (!input || input.dataset.fresh !== undefined) continue;
    if (input.type === "checkbox") input.checked = value;
    else input.value = value;
    input.dispatchEvent(new Event("input"));
  }
  if (focus) $(focus)?.focus();
}

export function checksTable(checks) {
  const rows = [...checks].sort((a, b) => Number(a.passed) - Number(b.passed)).map((one) =>
    h("tr", {},
      h("th", { scope: "row", class: "wrap" }, one.subject ? `${one.subject}: ${one.name}` : one.name,
        one.passed ? null : h("span", { class: "why" }, `${one.reason}. ${one.advice}.`)),
      h("td", { class: "n" }, value(one.figure, one.unit)),
      h("td", { class: "n" }, value(one.limit, one.unit)),
      h("td", {}, h("span", { class: one.passed ? "mark good" : "mark bad" }, one.passed ? "passed" : "failed"))));
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Check"), h("th", { scope: "col", class: "n" }, "Found"),
      h("th", { scope: "col", class: "n" }, "Limit"), h("th", { scope: "col" }, "Result"))),
    h("tbody", {}, rows)));
}

export function value(figure, unit) {
  if (unit === "Hz") return `${Math.round(figure)} Hz`;
  if (unit === "dB" || unit === "s") return `${Number(figure.toFixed(1))} ${unit}`;
  return `${Number(figure.toFixed(4))}${unit ? ` ${unit}` : ""}`;
}

export const capital = (text) => text[0].toUpperCase() + text.slice(1);

export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]));
}
