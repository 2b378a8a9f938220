// The last parts that were not good. New ones wait while somebody is at work here: a card must not move under a finger.
import { get, picturePath, resultsPath } from "./api.js";
import { openDetail } from "./detail.js";
import { badge, byId, el, icon, write } from "./dom.js";
import { changed, lastRecord, line, on, recordsOf, setRejects } from "./line.js";
import { canReview, mark, MARKS, writeNote } from "./review.js";
import { clockTime, explanation } from "./words.js";

const HOLD_MS = 5000;
const SETTLE_MS = 400;

const strip = byId("strip");
const cards = new Map();
let chosen = null; // a sequence
let doubtful = false;
let seen = new Set();
let waiting = [];
let touchedAt = 0;
let movedAt = 0;

export function startRejects() {
  on(["result"], take);
  on(["rejects"], render);
  on(["station"], load);
  for (const event of ["pointerdown", "pointermove", "wheel", "focusin"]) {
    strip.addEventListener(event, () => (touchedAt = Date.now()), { passive: true });
  }
  byId("doubtful").addEventListener("click", () => {
    doubtful = !doubtful;
    byId("doubtful").setAttribute("aria-pressed", String(doubtful));
    load();
  });
  byId("fresh").addEventListener("click", showWaiting);
  setInterval(() => held() || showWaiting(), 700);
}

const belongs = (record) => record.station === line.station && (record.verdict === "NG" || (doubtful && record.verdict !== "OK"));

async function load() {
  const station = line.station;
  if (station === null) return;
  waiting = [];
  const asked = Date.now();
  let records = recordsOf().filter(belongs).toReversed();
  try {
    const verdict = doubtful ? ["NG", "UNDECIDED", "ERROR"] : ["NG"];
    ({ results: records } = await get(resultsPath({ station, verdict, newest_first: true, limit: 24 })));
  } catch {
    // without a journal, what this page has seen
  }
  if (station !== line.station) return;
  const known = recordsOf();
  seen = new Set(known.map((record) => record.sequence));
  // What came after the question is not in its answer.
  const later = known.filter((record) => record.arrived >= asked && belongs(record) && !records.some((one) => one.sequence === record.sequence));
  waiting = [];
  setRejects([...later.toReversed(), ...records].map((record) => renewed(record, asked)));
}

// One object for one result: who is writing a note on it keeps hold of it, and a mark that was set here after the
// question is newer than its answer.
function renewed(record, asked) {
  const here = line.rejects.find((one) => one.sequence === record.sequence && one.session === record.session);
  if (!here) return record;
  return Object.assign(here, record, here.markedAt >= asked ? { review: here.review } : {});
}

function take() {
  for (const record of recordsOf().slice(-60)) {
    if (seen.has(record.sequence)) continue;
    seen.add(record.sequence);
    if (belongs(record) && !line.rejects.some((one) => one.sequence === record.sequence)) waiting.unshift(record);
  }
  if (seen.size > 20_000) seen = new Set(recordsOf().map((record) => record.sequence));
  if (held()) renderWaiting();
  else showWaiting();
}

const held = () => Date.now() - touchedAt < HOLD_MS || (strip.contains(document.activeElement) && document.hasFocus());

function showWaiting() {
  if (waiting.length) {
    movedAt = Date.now();
    setRejects([...waiting, ...line.rejects]);
    waiting = [];
  }
  renderWaiting();
}

function renderWaiting() {
  const button = byId("fresh");
  button.hidden = !waiting.length;
  write(button, `Show ${waiting.length} new`);
}

function render() {
  const shown = line.rejects.map((record) => {
    const key = `${record.review?.mark} ${record.review?.note} ${record.sequence === chosen} ${canReview(record)}`;
    let card = cards.get(record.sequence);
    if (!card) cards.set(record.sequence, (card = { node: el("li", { class: "reject" }) }));
    if (card.key !== key || card.record !== record) {
      if (card.record && card.record.session !== record.session) card.node.replaceChildren(); // another part's picture
      Object.assign(card, { key, record });
      const focused = card.node.contains(document.activeElement) ? document.activeElement.dataset.does : null;
      fillCard(card.node, record);
      if (focused) card.node.querySelector(`[data-does="${focused}"]`)?.focus();
    }
    return card.node;
  });
  if (shown.length !== strip.children.length || shown.some((node, index) => strip.children[index] !== node)) {
    const atStart = strip.scrollLeft < 40;
    strip.replaceChildren(...shown);
    if (atStart) strip.scrollLeft = 0;
  }
  for (const [sequence, card] of cards) if (!shown.includes(card.node)) cards.delete(sequence);
  const marked = line.rejects.filter((record) => record.review).length;
  write(byId("rejects-note"), line.rejects.length ? `${marked} of ${line.rejects.length} reviewed` : "");
}

function fillCard(node, record) {
  node.classList.toggle("chosen", record.sequence === chosen);
  node.dataset.sequence = record.sequence;
  const name = `${record.verdict}, result ${record.sequence}`;
  const kept = node.querySelector("img"); // a picture that is there already is not fetched again
  const shot = el(
    "button",
    { class: "shot", "aria-label": `${name}: open`, data: { does: "open" }, onclick: guarded(() => open(record)) },
    "no picture kept",
    kept ?? thumbnail(record),
    record.review ? el("span", { class: "mark" }, MARKS[record.review.mark], record.review.note ? " · note" : "") : null,
  );
  const button = (does, symbol, text, run) =>
    el(
      "button",
      {
        class: "button small",
        "aria-label": `${text || "Note"}: ${name}`,
        "aria-pressed": does === "note" ? undefined : String(record.review?.mark === does),
        data: { does },
        onclick: guarded(run),
      },
      icon(symbol),
      text,
    );
  node.replaceChildren(
    shot,
    el("div", { class: "facts" }, badge(record.verdict), el("span", {}, `${record.part_id ?? record.sequence} · ${clockTime(record.captured_utc)}`)),
    el("p", { class: "what" }, explanation(record)),
  );
  if (!canReview(record)) return;
  node.append(
    el(
      "div",
      { class: "buttons" },
      button("confirmed", "yes", "Confirm", () => mark(record, "confirmed")),
      button("overruled", "no", "Overrule", () => mark(record, "overruled")),
      button("note", "note", "", () => writeNote(record)),
    ),
  );
}

// The picture may be written to disk a moment after the result was told.
function thumbnail(record) {
  const image = el("img", { src: picturePath(record, "thumbnail"), alt: "", loading: "lazy" });
  let tries = 0;
  image.addEventListener("error", () => {
    image.hidden = true;
    if (++tries <= 3) {
      setTimeout(() => {
        image.hidden = false;
        image.src = `${picturePath(record, "thumbnail")}&try=${tries}`;
      }, 700 * tries);
    }
  });
  return image;
}

// A card that moves under a finger is not what the finger meant. A key presses the focused card wherever it lies
// (a click without a pointer has detail 0).
const guarded = (run) => (event) => (event.detail === 0 || Date.now() - movedAt > SETTLE_MS) && run();

function open(record) {
  choose(record.sequence);
  openDetail(record, neighbour);
}

function choose(sequence) {
  chosen = sequence;
  changed("rejects");
}

const neighbour = (record, step) => {
  const index = line.rejects.findIndex((one) => one.sequence === record.sequence);
  const next = line.rejects[index + step];
  if (index < 0 || !next) return null;
  choose(next.sequence);
  return next;
};

// For the keyboard: the card that is chosen, and the one beside it.
export const chosenReject = () => line.rejects.find((record) => record.sequence === chosen) ?? null;

export function step(by) {
  touchedAt = Date.now();
  const index = line.rejects.findIndex((record) => record.sequence === chosen);
  const next = line.rejects[index < 0 ? 0 : Math.max(0, Math.min(line.rejects.length - 1, index + by))];
  if (!next) return;
  choose(next.sequence);
  const shot = cards.get(next.sequence)?.node.querySelector(".shot");
  shot?.focus({ preventScroll: true });
  cards.get(next.sequence)?.node.scrollIntoView({ block: "nearest", inline: "nearest" });
}

export function openChosen() {
  const record = chosenReject() ?? lastRecord();
  if (record) open(record);
}
