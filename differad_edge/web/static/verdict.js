// The verdict of the last part, large; and nothing that looks like a verdict when it is not known to be true.
import { byId, icon, write, el } from "./dom.js";
import { lastRecord, line, on, recordsOf, stationStatus } from "./line.js";
import { ago, asSentence, clockTime, explanation, score, serves, stateInWords } from "./words.js";

const FRESH_MS = { request: 30_000, free: 10_000, rate: 10_000 };
const SPOKEN_EVERY_MS = 3000;
const HISTORY = 120;

const card = byId("verdict");
let spoken = "";
let spokenAt = 0;
let drawnHistory = "";

export function startVerdict() {
  on(["result", "status", "link", "station", "tick"], render);
}

function render() {
  const station = stationStatus();
  const record = lastRecord();
  const known = line.link.state === "live" && station && serves(station.state);
  const shown = known && record ? record : null;
  const age = record ? Date.now() - record.arrived : 0;
  card.classList.toggle("lost", !known && line.link.state !== "connecting");
  card.classList.toggle("old", Boolean(shown) && age > (FRESH_MS[station.trigger] ?? 10_000));
  if (shown) card.dataset.verdict = shown.verdict;
  else delete card.dataset.verdict;

  if (shown) showVerdict(shown);
  else showNone(station, record);
  write(byId("age"), shown ? ago(age) : "");
  showGauge(shown);
  showHistory();
  speak(shown, station);
}

function showVerdict(record) {
  write(byId("part"), partName(record));
  word(record.verdict, record.verdict, record.verdict.length > 3 ? "long" : "");
  write(byId("why"), explanation(record));
  const rest = record.detail ?? record.notes[0] ?? "";
  write(byId("more"), rest ? asSentence(rest) : "");
}

function showNone(station, record) {
  const since = clockTime(line.link.since);
  let name = "wait";
  let text = "Waiting for the first part";
  let why = "";
  if (line.link.state === "connecting") text = "Connecting";
  else if (line.link.state === "lost") {
    [name, text] = ["lost", "No connection"];
    why = `No connection since ${since}. What the line does now is not known.`;
  } else if (line.link.state === "silent") {
    [name, text] = ["lost", "The line is silent"];
    why = `The line has said nothing since ${since}. What it does now is not known.`;
  } else if (station && !serves(station.state)) {
    [name, text] = [station.state === "Error" ? "ERROR" : "stop", stateInWords(station.state)];
    why = `No parts are inspected${station.why ? `: ${station.why}` : "."}`;
  }
  word(name, text, "sentence");
  write(byId("part"), station?.name ?? "");
  write(byId("why"), why);
  write(byId("more"), record && why ? `The last part before that: ${partName(record)}, ${clockTime(record.captured_utc)}` : "");
}

const partName = (record) => (record.part_id ? `Part ${record.part_id}` : `Result ${record.sequence}`);

function word(symbol, text, size) {
  const node = byId("word");
  if (node.dataset.shown === symbol + text) return;
  node.dataset.shown = symbol + text;
  node.className = `word ${size}`;
  node.replaceChildren(icon(symbol), el("span", {}, text));
}

function showGauge(record) {
  const gauge = byId("gauge");
  const decided = record && (record.verdict === "OK" || record.verdict === "NG");
  gauge.hidden = !decided;
  if (!decided) return;
  gauge.querySelector(".value").style.width = `${record.score * 100}%`;
  const limit = gauge.querySelector(".limit");
  limit.hidden = record.threshold === null;
  limit.style.left = `${(record.threshold ?? 0) * 100}%`;
  write(byId("score"), `Score ${score(record.score)}`);
  write(byId("limit"), record.threshold === null ? "" : `NG from ${score(record.threshold)}`);
}

function showHistory() {
  const records = recordsOf().slice(-HISTORY);
  const key = `${line.station} ${records.at(-1)?.sequence} ${records.length}`;
  if (key === drawnHistory) return;
  drawnHistory = key;
  byId("history").replaceChildren(...records.map((record) => el("i", { data: { verdict: record.verdict } })));
  const bad = records.filter((record) => record.verdict !== "OK").length;
  byId("history").setAttribute("aria-label", `The last ${records.length} parts: ${bad} not OK`);
}

// A screen reader hears changes, and not five parts a second.
function speak(record, station) {
  const now = Date.now();
  const text = record
    ? `${record.verdict}. ${explanation(record)}`
    : line.link.state === "live" && station
      ? stateInWords(station.state)
      : byId("word").textContent;
  if (text === spoken || now - spokenAt < SPOKEN_EVERY_MS) return;
  spoken = text;
  spokenAt = now;
  write(byId("spoken"), text);
}
