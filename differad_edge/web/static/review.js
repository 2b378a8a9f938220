// Marks on results: confirm, overrule, note; each can be taken back.
import { post } from "./api.js";
import { ask, attempt, notice } from "./ask.js";
import { el } from "./dom.js";
import { changed, line } from "./line.js";

export const MARKS = { confirmed: "Confirmed", overruled: "Overruled" };

export const canReview = (record) => Boolean(line.status?.journal) && record.journaled !== false;

function reviewer() {
  try {
    return localStorage.getItem("reviewer") || null;
  } catch {
    return null;
  }
}

export async function mark(record, name, note = null) {
  const before = record.review ?? null;
  const body = { sequence: record.sequence, mark: name, note, by: reviewer() };
  // At once, so that a note that is opened right after the mark begins with it; taken back when it is refused.
  record.review = name === "cleared" ? null : { mark: name, note, by: body.by };
  record.markedAt = Date.now();
  changed("rejects");
  if (!(await attempt(() => post("/api/review", body)))) {
    record.review = before;
    changed("rejects");
    return;
  }
  if (name === "cleared") return;
  notice(`Result ${record.sequence}: ${MARKS[name].toLowerCase()}`, {
    name: "Undo",
    run: () => mark(record, before?.mark ?? "cleared", before?.note ?? null),
  });
}

export async function writeNote(record) {
  const text = el("textarea", { rows: 4, maxlength: 2000, autofocus: true });
  text.value = record.review?.note ?? "";
  const name = el("input", { type: "text", maxlength: 128, autocomplete: "name" });
  name.value = reviewer() ?? "";
  const choices = Object.entries({ confirmed: `${record.verdict} is right`, overruled: `${record.verdict} is wrong` }).map(
    ([value, words]) => {
      const input = el("input", { type: "radio", name: "mark", value });
      input.checked = value === (record.review?.mark ?? "confirmed");
      return el("label", { class: "choice" }, input, words);
    },
  );
  const yes = await ask({
    title: `Note on result ${record.sequence}`,
    content: [el("div", {}, ...choices), el("label", {}, "Note", text), el("label", {}, "Your name (kept on this device)", name)],
    yes: "Save",
  });
  if (!yes) return;
  try {
    localStorage.setItem("reviewer", name.value.trim());
  } catch {
    // then it is asked for again
  }
  const chosen = choices.map((label) => label.firstChild).find((input) => input.checked);
  await mark(record, chosen.value, text.value.trim() || null);
}
