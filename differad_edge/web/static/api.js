// The HTTP API. A refusal becomes an Error with its code and the server's own words.
export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function answerOf(response) {
  if (response.status === 401) {
    location.assign("/login");
  }
  if (response.ok) return response.json();
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // a proxy in between answers in its own way
  }
  throw new Refusal(response.status, error.code ?? "http", error.message ?? `The server answered ${response.status}.`);
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal(0, "no-connection", "No connection to the line.");
  }
  return answerOf(response);
}

export const get = (path) => ask(path, { cache: "no-store", signal: AbortSignal.timeout(8000) });

// No time limit: registering and reloading take as long as their smoke tests.
export const post = (path, body = {}) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export function resultsPath(fields) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) query.append(name, one);
  }
  return `/api/results?${query}`;
}

export const picturePath = (record, kind) =>
  `/api/results/${record.sequence}/${kind}?of=${encodeURIComponent(record.image_fingerprint ?? record.session)}`;

export const referencePath = (product, sha256) =>
  `/api/products/${encodeURIComponent(product)}/reference.jpg?of=${encodeURIComponent(sha256 ?? "")}`;
