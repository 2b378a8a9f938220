// Review without a mouse: arrows, Enter, C, O, N, and ? for all of it. Esc closes a dialog by itself.
import { ask } from "./ask.js";
import { byId, el } from "./dom.js";
import { detailRecord, stepDetail } from "./detail.js";
import { chosenReject, openChosen, step } from "./rejects.js";
import { canReview, mark, writeNote } from "./review.js";

const KEYS = [
  [["←", "→"], "Newer or older rejected part"],
  [["Enter"], "Open it in detail"],
  [["C"], "Confirm: the verdict is right"],
  [["O"], "Overrule: the verdict is wrong"],
  [["N"], "Write a note"],
  [["Esc"], "Close"],
  [["?"], "This list"],
];

export function startKeyboard() {
  document.addEventListener("keydown", pressed);
  byId("help").addEventListener("click", showKeys);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (byId("ask").open || event.target.closest?.("input, textarea, select")) return;
  const record = detailRecord() ?? chosenReject();
  const acts = {
    ArrowLeft: () => move(-1),
    ArrowRight: () => move(1),
    Enter: () => openChosen(),
    c: () => record && canReview(record) && mark(record, "confirmed"),
    o: () => record && canReview(record) && mark(record, "overruled"),
    n: () => record && canReview(record) && writeNote(record),
    "?": () => showKeys(),
  };
  const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  // Enter on a button presses that button.
  if (event.key === "Enter" && (detailRecord() || event.target.closest?.("button, a"))) return;
  event.preventDefault();
  act();
}

const move = (by) => (detailRecord() ? stepDetail(by) : step(by));

function showKeys() {
  const rows = KEYS.flatMap(([keys, meaning]) => [el("dt", {}, ...keys.flatMap((key) => [el("kbd", {}, key), " "])), el("dd", {}, meaning)]);
  ask({ title: "Keys for review", content: [el("dl", { class: "keys" }, ...rows)], yes: "Close", no: null });
}
