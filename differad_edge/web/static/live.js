// The live picture: fetched when there is a newer one, and never shown as live when it is not.
import { byId, write } from "./dom.js";
import { boxesOf, drawPicture } from "./boxes.js";
import { lastRecord, line, on, recordOf, stationStatus } from "./line.js";
import { clockTime, serves, stateInWords } from "./words.js";

const LEAST_GAP_MS = 160;
const WIDTHS = [480, 800, 1200, 1600];

const canvas = byId("live-canvas");
let current = null; // {station, etag, bitmap, sequence, size}
let busy = false;
let again = null;
let fetchedAt = 0;

export function startLive() {
  on(["result", "station"], wanted);
  on(["result", "station", "link", "status"], draw);
}

function wanted() {
  if (document.hidden || line.station === null || line.link.state === "connecting") return;
  const last = lastRecord();
  if (!last && !stationStatus()?.last_sequence) return; // nothing was inspected yet
  if (current?.station === line.station && last && current.sequence === last.sequence) return;
  const wait = LEAST_GAP_MS - (Date.now() - fetchedAt);
  if (busy || wait > 0) {
    again ??= setTimeout(() => {
      again = null;
      wanted();
    }, Math.max(wait, 60));
    return;
  }
  fetchPicture();
}

async function fetchPicture() {
  busy = true;
  fetchedAt = Date.now();
  const station = line.station;
  try {
    const across = canvas.clientWidth * devicePixelRatio;
    const width = WIDTHS.find((one) => one >= across * 0.9) ?? WIDTHS.at(-1);
    const headers = current?.station === station ? { "If-None-Match": current.etag } : {};
    const response = await fetch(`/api/live/${encodeURIComponent(station)}.jpg?w=${width}`, { headers, cache: "no-store" });
    if (response.status === 200) {
      const bitmap = await createImageBitmap(await response.blob());
      const [wide, high] = response.headers.get("X-Frame-Size").split("x").map(Number);
      if (station === line.station) {
        current?.bitmap.close();
        const sequence = Number(response.headers.get("X-Result-Sequence") ?? 0);
        current = { station, etag: response.headers.get("ETag"), bitmap, sequence, size: [wide, high] };
        draw();
      }
    }
  } catch {
    // the stream notices a lost connection, and says so
  } finally {
    busy = false;
  }
}

function whyStale() {
  if (line.link.state === "lost") return `no connection since ${clockTime(line.link.since)}`;
  if (line.link.state === "silent") return `the line is silent since ${clockTime(line.link.since)}`;
  const station = stationStatus();
  return station && !serves(station.state) ? stateInWords(station.state).toLowerCase() : "";
}

function draw() {
  const shown = current?.station === line.station ? current : null;
  const stale = whyStale();
  byId("live-picture").classList.toggle("stale", stale !== "");
  const veil = byId("live-veil");
  veil.hidden = Boolean(shown) && !stale;
  write(veil, shown ? `Not live: ${stale}` : "No picture yet");
  if (!shown) {
    write(byId("live-note"), "");
    return;
  }
  const record = shown.sequence ? recordOf(shown.sequence) : null;
  drawPicture(canvas, shown.bitmap, {
    boxes: record ? boxesOf(record) : [],
    verdict: record?.verdict,
    sourceSize: shown.size,
  });
  write(byId("live-note"), record ? `${record.sequence} · ${clockTime(record.captured_utc)}` : "");
  canvas.setAttribute(
    "aria-label",
    record ? `Live picture: ${record.verdict}, ${record.findings.length} places marked` : "Live picture",
  );
}
