// What is shown: one view at a time, drawn from the server's state after everything that was done.

import { $, button, complain, h, quiet, redraw, say } from "./dom.js";
import { enrol, isRecording, stopRecording } from "./enrol.js";
import { opening } from "./opening.js";
import { budget, consent, ledger } from "./papers.js";
import { get, send } from "./server.js";
import { overview, voices } from "./voices.js";

const VIEWS = { overview, enrol, voices, consent, budget, ledger };
const NAMES = {
  overview: "Overview", enrol: "Enrol", voices: "Voices", consent: "Consent", budget: "Budget", ledger: "Ledger",
};
const POLL_MS = 700;
let state = null;
let shown = "";
let watching = null;
let drawing = 0;
const running = new Map();

const page = {
  get state() { return state; },
  go(view) { location.hash = `#${view}`; },
  refresh,
  watch,
  async act(work, done = "") {
    quiet();
    try {
      const found = await work();
      if (found?.job) watch();
      await refresh();
      if (done) say(done);
      return found;
    } catch (error) {
      complain(error);
      await refresh().catch(() => {});
      return null;
    }
  },
};

function wanted() {
  const name = location.hash.slice(1);
  return name in VIEWS ? name : "overview";
}

async function refresh() {
  state = await get("/state");
  await draw();
  drawJobs(state.jobs);
  if (state.jobs.some((job) => ["waiting", "running", "cancelling"].includes(job.state))) watch();
}

async function draw() {
  drawing += 1;
  const mine = drawing;
  const open = state.vault === "open";
  const name = open || wanted() === "ledger" ? wanted() : "opening";
  const isNew = name !== shown;
  drawBar(open, name);
  // What is drawn anew would take the Stop button of a microphone that is on.
  if (isRecording() && !isNew) return;
  stopRecording();
  let children = (name === "opening" ? opening : VIEWS[name])(page);
  if (children instanceof Promise) {
    if (isNew) $("main").replaceChildren(h("h2", { tabIndex: -1 }, NAMES[name]), h("p", { class: "quiet" }, "One moment."));
    children = await children;
    if (mine !== drawing) return; // another view was asked for meanwhile
  }
  if (isNew) $("main").replaceChildren();
  redraw($("main"), children);
  document.title = `${NAMES[name] ?? "Open"} · Chorister`;
  if (isNew && shown) $("main").querySelector("h2")?.focus();
  shown = name;
}

function drawBar(open, name) {
  $("where").textContent = state.folder;
  $("lock").hidden = !open;
  $("nav").hidden = !open;
  $("nav").replaceChildren(...Object.entries(NAMES).map(([view, text]) =>
    h("a", { href: `#${view}`, "aria-current": view === name ? "page" : null }, text)));
}

function drawJobs(jobs) {
  const active = jobs.filter((job) => ["waiting", "running", "cancelling"].includes(job.state));
  for (const job of jobs) {
    const before = running.get(job.id);
    if (before && before !== job.state && !active.includes(job)) announce(job);
    running.set(job.id, job.state);
  }
  redraw($("jobs"), active.map((job) => h("div", { class: "job" },
    h("label", { for: `job-${job.id}` }, job.title, job.state === "running" ? "" : ` (${job.state})`),
    job.kind === "enrol" || job.state === "waiting"
      ? h("progress", { id: `job-${job.id}` })
      : h("progress", { id: `job-${job.id}`, max: String(job.total || 1), value: String(job.done) }),
    h("span", { class: "n quiet" }, job.kind === "enrol" ? "" : `${job.done} of ${job.total}`),
    job.kind === "enrol" ? null : button("Cancel", () => page.act(() => send("jobs/cancel", { job: job.id })),
      { class: "plain", id: `cancel-${job.id}`, "aria-label": `Cancel: ${job.title}`, disabled: job.state === "cancelling" }))));
  return active.length > 0;
}

function announce(job) {
  if (job.state === "failed") complain({ parts: job.error });
  else say(`${job.title}: ${job.state}`);
}

function watch() {
  if (watching) return;
  watching = setInterval(async () => {
    try {
      const { jobs } = await get("/jobs");
      if (!drawJobs(jobs)) {
        clearInterval(watching);
        watching = null;
        await refresh();
      }
    } catch (error) {
      clearInterval(watching);
      watching = null;
      complain(error);
    }
  }, POLL_MS);
}

$("lock").addEventListener("click", () => page.act(() => send("lock"), "The vault is locked."));
window.addEventListener("hashchange", () => {
  stopRecording();
  quiet();
  draw().then(() => window.scrollTo(0, 0)).catch(complain);
});
// Another window may have done something meanwhile.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && state) refresh().catch(complain);
});
refresh().catch(complain);
