// The one way to this machine's server: same origin, this page's token, errors in three parts.

const token = document.querySelector("meta[name=chorister-token]").content;

export class Refused extends Error {
  constructor(parts, status) {
    super(`${parts.rule} ${parts.advice}`);
    this.parts = parts;
    this.status = status;
  }
}

async function answer(promise) {
  let response;
  try {
    response = await promise;
  } catch {
    throw new Refused({
      rule: "The page is served while chorister ui runs.", found: "no answer",
      advice: "Start it again in the terminal, and open its new link.",
    }, 0);
  }
  const plain = await response.json().catch(() => null);
  if (response.ok && plain !== null) return plain;
  throw new Refused(plain?.error ?? {
    rule: "The server answers what it is asked.", found: `status ${response.status}`,
    advice: "The terminal says more.",
  }, response.status);
}

export const get = (path) => answer(fetch(path, { cache: "no-store" }));

export const send = (path, form = {}) => answer(fetch(`/do/${path}`, {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Chorister-Token": token },
  body: JSON.stringify(form),
}));

export const upload = (path, data, kind) => answer(fetch(`/do/${path}`, {
  method: "POST",
  headers: { "Content-Type": kind, "X-Chorister-Token": token },
  body: data,
}));
