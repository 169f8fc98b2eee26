// Before a vault is open: make one, open it, or say why there is nothing to open.

import { button, field, h } from "./dom.js";
import { receiptLinks, withdrawal } from "./papers.js";
import { send } from "./server.js";

const secret = (again) => h("input", { type: "password", autocomplete: again ? "new-password" : "current-password", required: true });

export function opening(page) {
  const { state } = page;
  return { absent: make, locked: unlock, moved, unfinished, withdrawn }[state.vault](page, state);
}

function make(page, state) {
  const first = secret(true);
  const again = secret(true);
  const asks = state.needs_passphrase;
  return [
    h("h2", { tabIndex: -1 }, "Make a vault for your voice"),
    h("p", {}, "Everything of your voice lies in a vault on this machine: recordings, keys, consent. It is encrypted, and ",
      "opens with a passphrase that you choose now. Nobody can open it without, and nobody can give you a new one."),
    h("form", { class: "form", onsubmit: (event) => {
      event.preventDefault();
      page.act(() => send("create", { passphrase: first.value, again: again.value }), "The vault is open.");
    } },
      asks && field("passphrase", "Passphrase", first, "8 characters or more; a few words are good."),
      asks && field("again", "The same once more", again),
      h("p", {}, h("button", { type: "submit", class: "main", id: "make" }, "Make the vault")),
      h("p", { class: "quiet" }, "It will lie in ", h("code", {}, state.folder), "."))];
}

function unlock(page, state) {
  const input = secret(false);
  return [
    h("h2", { tabIndex: -1 }, "Open your vault"),
    state.locked_by_time && h("p", { class: "notice" }, `It was locked because nothing was done here for ${state.idle_minutes} minutes.`),
    h("form", { class: "form", onsubmit: (event) => {
      event.preventDefault();
      page.act(() => send("open", { passphrase: input.value }), "The vault is open.");
    } },
      state.needs_passphrase && field("passphrase", "Passphrase", input, "After three wrong ones you have to wait, longer each time."),
      h("p", {}, h("button", { type: "submit", class: "main", id: "open" }, "Open"))),
    h("details", {}, h("summary", {}, "Withdraw without opening it"),
      h("p", {}, "If the vault does not open because something in it or beside it is damaged, you can still withdraw."),
      withdrawal(page))];
}

function moved(page, state) {
  return [
    h("h2", { tabIndex: -1 }, "This vault was moved to another machine"),
    h("p", {}, "A voice and its budget live on one machine. Use it there; to come back, export it there and import it here with ",
      h("code", {}, "chorister vault import"), "."),
    h("p", { class: "quiet" }, state.folder)];
}

function unfinished(page) {
  return [
    h("h2", { tabIndex: -1 }, "A withdrawal was begun and not finished"),
    h("p", {}, "The voice is refused already. Finish it, so that its keys are destroyed."),
    withdrawal(page)];
}

function withdrawn(page, state) {
  return [
    h("h2", { tabIndex: -1 }, "This voice was withdrawn"),
    h("p", { class: "lead" }, `On ${state.withdrawn.at}. Its keys, recordings and voice files are destroyed; every use is refused.`),
    receiptLinks(state),
    h("p", {}, button("Show the ledger", () => page.go("ledger"))),
    h("p", { class: "quiet" }, "A new consent needs a new vault: end this page, and run ",
      h("code", {}, "chorister ui --vault DIR"), " with another folder.")];
}
