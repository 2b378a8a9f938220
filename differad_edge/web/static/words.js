// Codes as words, numbers as text.
const REASONS = {
  deadline: "Took too long",
  "unparsable-answer": "The engine's answer made no sense",
  misaligned: "The part is not where the reference is",
  "bad-frame": "The picture cannot be used",
  "engine-failure": "The engine failed",
  "non-finite-score": "The engine gave no valid score",
  "unverified-reference": "The reference cannot be trusted",
  "no-frame": "No picture came from the camera",
  "stale-frame": "The picture is too old",
  superseded: "A newer part took its place",
  stopped: "The line was stopped",
};

const STATES = {
  Preoperational: "Starting",
  Halted: "Halted",
  Error: "Fault",
  Initialized: "Getting ready",
  Ready: "Ready",
  SingleExecution: "Inspecting",
  ContinuousExecution: "Running",
};

const SERVING = new Set(["Ready", "SingleExecution", "ContinuousExecution"]);

export const reasonInWords = (code) => REASONS[code] ?? (code ? asWords(code) : "");
export const stateInWords = (state) => STATES[state] ?? state;
export const serves = (state) => SERVING.has(state);

export function asWords(code) {
  const text = String(code).replaceAll(/[-_]/g, " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const plain = new Intl.NumberFormat("en");

export const count = (value) => plain.format(value ?? 0);
export const share = (part, whole) => (whole > 0 ? `${(Math.floor((part / whole) * 1000) / 10).toFixed(1)}` : "–");
export const score = (value) => (typeof value === "number" ? value.toFixed(3) : "–");
export const ms = (value) => (typeof value === "number" ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms` : "–");
export const shortHash = (text) => (text ? `${text.slice(0, 12)}…` : "–");

export const clockTime = (moment) =>
  new Date(moment).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const dateAndTime = (moment) =>
  `${new Date(moment).toLocaleDateString("en-CA")} ${clockTime(moment)}`;

export function ago(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}

// What a verdict means, in one line.
export function explanation(record) {
  if (record.verdict === "OK") return "No difference that counts";
  if (record.verdict === "NG") {
    const places = record.findings.length;
    const first = record.findings[0]?.description;
    const more = places > 1 ? ` (and ${places - 1} more)` : "";
    return first ? asSentence(first) + more : `${places} place${places === 1 ? "" : "s"} differ${places === 1 ? "s" : ""}`;
  }
  return reasonInWords(record.reason);
}

export const asSentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
