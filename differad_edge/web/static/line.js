// What the page knows about the line, and who wants to hear of which change.
const KEPT = 1500;
const REJECTS = 30;

export const line = {
  status: null,
  station: null, // the name of the one that is shown
  link: { state: "connecting", since: Date.now() }, // connecting | live | silent | lost
  lostMessages: 0,
  results: new Map(), // station -> records, oldest first
  rejects: [], // newest first
};

const listeners = new Map();
const dirty = new Set();
let scheduled = false;

// Topics: status, result, rejects, link, station, tick.
export function on(topics, render) {
  for (const topic of topics) {
    if (!listeners.has(topic)) listeners.set(topic, new Set());
    listeners.get(topic).add(render);
  }
}

export function changed(...topics) {
  for (const topic of topics) dirty.add(topic);
  if (scheduled) return;
  scheduled = true;
  // A hidden page gets no animation frames: what a screen reader or a test sees must not wait for one.
  if (document.hidden) setTimeout(flush, 50);
  else requestAnimationFrame(flush);
}

function flush() {
  scheduled = false;
  const renders = new Set();
  for (const topic of dirty) for (const render of listeners.get(topic) ?? []) renders.add(render);
  dirty.clear();
  for (const render of renders) {
    try {
      render();
    } catch (error) {
      console.error(error); // one panel's fault must not freeze the verdict
    }
  }
}

export const stationStatus = (name = line.station) => line.status?.stations?.find((item) => item.name === name) ?? null;

export const recordsOf = (name = line.station) => line.results.get(name) ?? [];

export const lastRecord = (name = line.station) => recordsOf(name).at(-1) ?? null;

export const recordOf = (sequence) => {
  for (const records of line.results.values()) {
    const found = records.findLast((record) => record.sequence === sequence);
    if (found) return found;
  }
  return line.rejects.find((record) => record.sequence === sequence) ?? null;
};

export function addResult(record) {
  record.arrived = Date.now();
  const records = line.results.get(record.station) ?? [];
  const last = records.at(-1);
  if (last && last.session === record.session && last.sequence >= record.sequence) return;
  records.push(record);
  if (records.length > KEPT) records.splice(0, records.length - KEPT);
  line.results.set(record.station, records);
  changed("result");
}

// Records that were there before the page; `newestFirst` as the journal gave them.
export function seedResults(station, newestFirst) {
  const records = newestFirst.toReversed();
  for (const record of records) record.arrived = Date.parse(record.captured_utc);
  line.results.set(station, records);
  changed("result");
}

export function setRejects(records) {
  line.rejects = records.slice(0, REJECTS);
  changed("rejects");
}

export function setStatus(status) {
  line.status = status;
  const names = (status.stations ?? []).map((item) => item.name);
  if (!names.includes(line.station)) {
    line.station = names[0] ?? null;
    changed("station");
  }
  changed("status");
}

export function showStation(name) {
  if (name === line.station) return;
  line.station = name;
  changed("station", "status", "result", "rejects");
}
