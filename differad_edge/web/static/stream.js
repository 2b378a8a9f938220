// The stream of events, and the judgement whether what the page shows is still true.
import { get, resultsPath } from "./api.js";
import { addResult, changed, line, seedResults, setStatus } from "./line.js";

const PULSE_LIMIT_MS = 3500; // the server sends one every second
const SILENCE_MIN_MS = 3500;
const STATUS_EVERY_MS = 2000;
const SEEDED = 600;

let source = null;
let lastPulse = 0;
let lastWord = 0; // of the line itself
let gap = 1000; // between its heartbeats
let lastBeat = 0;
let polling = false;
let lastGood = Date.now();

export function connect() {
  open();
  setInterval(judge, 500);
  setInterval(pollStatus, STATUS_EVERY_MS);
  // A tablet that wakes up shows the picture of yesterday until somebody looks at the clock.
  for (const event of ["pageshow", "online", "focus"]) addEventListener(event, judge);
  document.addEventListener("visibilitychange", judge);
}

function open() {
  source?.close();
  source = new EventSource("/api/stream");
  source.addEventListener("open", () => {
    lastPulse = lastWord = Date.now();
    catchUp();
  });
  source.addEventListener("error", () => {
    lastPulse = 0; // what broke off is not waited for
    judge();
  });
  source.addEventListener("pulse", (event) => {
    lastPulse = Date.now();
    const { lost } = JSON.parse(event.data);
    if (lost !== line.lostMessages) {
      line.lostMessages = lost;
      changed("link");
      if (lost) catchUp();
    }
    judge();
  });
  source.addEventListener("result", (event) => {
    heard();
    addResult(JSON.parse(event.data));
  });
  source.addEventListener("heartbeat", (event) => {
    const now = Date.now();
    if (lastBeat) gap = Math.min(60_000, Math.max(now - lastBeat, gap * 0.9));
    lastBeat = now;
    heard();
    const beat = JSON.parse(event.data);
    if (Array.isArray(beat.stations) && line.status) setStatus({ ...line.status, ...beat });
  });
  source.addEventListener("event", () => {
    heard();
    pollStatus();
  });
  source.addEventListener("late", heard);
}

function heard() {
  lastPulse = lastWord = Date.now();
  if (line.link.state !== "live") judge();
}

function judge() {
  const now = Date.now();
  let state = "live";
  if (now - lastPulse > PULSE_LIMIT_MS) state = line.status ? "lost" : "connecting";
  else if (now - lastWord > Math.max(SILENCE_MIN_MS, 3 * gap)) state = "silent";
  if (state === "live") lastGood = now;
  if (state !== line.link.state) {
    line.link = { state, since: state === "live" ? now : lastGood };
    changed("link");
  }
  if (source.readyState === EventSource.CLOSED) {
    // The browser gave up, as it does after a refusal: ask why, which leads to the login where that is it.
    pollStatus();
    open();
  }
  changed("tick");
}

async function pollStatus() {
  if (polling || document.hidden) return;
  polling = true;
  try {
    setStatus(await get("/api/status"));
  } catch {
    judge();
  } finally {
    polling = false;
  }
}

// After a connect: what happened before it, from the journal where there is one.
async function catchUp() {
  try {
    setStatus(await get("/api/status"));
    for (const { name } of line.status.stations) {
      const { results } = await get(resultsPath({ station: name, newest_first: true, limit: SEEDED }));
      const streamed = (line.results.get(name) ?? []).filter(
        (record) => record.session === line.status.session && record.sequence > (results[0]?.sequence ?? 0),
      );
      seedResults(name, results);
      streamed.forEach(addResult);
    }
  } catch (error) {
    if (error.code !== "no-journal") console.info(`history: ${error.message}`);
  }
  changed("station");
  judge();
}
