// One part in detail: the reference beside it, what differs, how long it took, and what it was compared with.
import { get, picturePath, referencePath } from "./api.js";
import { boxesOf, drawPicture } from "./boxes.js";
import { badge, byId, el, icon } from "./dom.js";
import { changed, line, on } from "./line.js";
import { canReview, mark, MARKS, writeNote } from "./review.js";
import { asSentence, asWords, dateAndTime, explanation, ms, score } from "./words.js";

const ZOOM_MARGIN = 2.4; // how much around a finding is shown, in its own sizes

const dialog = byId("detail");
let shown = null; // {record, neighbour, part, reference, focus}

export function startDetail() {
  on(["rejects"], () => dialog.open && renderFoot());
  dialog.addEventListener("close", () => (shown = null));
}

export const detailRecord = () => (dialog.open ? shown?.record : null);

export function openDetail(record, neighbour) {
  shown = { record, neighbour, part: null, reference: null, focus: null };
  build();
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  load(shown, "part", picturePath(record, "image"));
  if (record.product) load(shown, "reference", referencePath(record.product, record.reference_sha256));
  if (line.status?.journal) refresh(shown);
}

export function stepDetail(by) {
  const next = shown?.neighbour(shown.record, by);
  if (next) openDetail(next, shown.neighbour);
}

// The mark may have been set elsewhere meanwhile.
async function refresh(mine) {
  try {
    const stored = await get(`/api/results/${mine.record.sequence}`);
    mine.record.review = stored.review;
    changed("rejects");
  } catch {
    // what the page knows has to do
  }
}

function load(mine, name, path) {
  const image = new Image();
  image.addEventListener("load", () => {
    mine[name] = image;
    if (mine === shown) draw();
  });
  image.addEventListener("error", () => {
    if (mine === shown) byId(`${name}-veil`).textContent = name === "part" ? "No picture was kept" : "No reference picture";
  });
  image.src = path;
}

function build() {
  const { record } = shown;
  const press = (by) => () => stepDetail(by);
  const panel = (name, title, note) =>
    el(
      "figure",
      {},
      el("figcaption", {}, title, el("span", { class: "note" }, note)),
      el("div", { class: "picture" }, el("canvas", { id: `${name}-canvas`, width: 4, height: 3, role: "img", "aria-label": title }), el("div", { class: "veil", id: `${name}-veil` }, "Loading")),
    );
  const changedSince = referenceChanged(record);
  dialog.replaceChildren(
    el(
      "header",
      { class: "detail-head" },
      badge(record.verdict),
      el("h2", {}, record.part_id ? `Part ${record.part_id}` : `Result ${record.sequence}`),
      el("span", { class: "note" }, dateAndTime(record.captured_utc)),
      el(
        "span",
        { class: "turns" },
        el("button", { class: "button square", "aria-label": "Newer part", onclick: press(-1) }, icon("left")),
        el("button", { class: "button square", "aria-label": "Older part", onclick: press(1) }, icon("right")),
        el("button", { class: "button square", "aria-label": "Close", onclick: () => dialog.close() }, icon("close")),
      ),
    ),
    el(
      "div",
      { class: "detail-body" },
      el("p", { class: "why" }, explanation(record)),
      record.detail ? el("p", { class: "more" }, asSentence(record.detail)) : null,
      el("div", { class: "pair" }, panel("reference", "Reference", changedSince ? "changed since this part" : (record.product ?? "")), panel("part", "Part", `score ${score(record.score)}`)),
      el("div", { class: "columns" }, findings(record), timings(record), trace(record)),
    ),
    el("footer", { class: "detail-foot", id: "detail-foot" }),
  );
  renderFoot();
}

const referenceChanged = (record) => {
  const now = line.status?.products?.[record.product]?.reference_sha256;
  return Boolean(now && record.reference_sha256 && now !== record.reference_sha256);
};

function renderFoot() {
  const { record } = shown;
  const review = record.review;
  const button = (name, symbol, text) =>
    el("button", { class: "button", "aria-pressed": String(review?.mark === name), data: { does: name }, onclick: () => mark(record, name) }, icon(symbol), text);
  const says = review ? `${MARKS[review.mark] ?? review.mark}${review.by ? ` by ${review.by}` : ""}${review.note ? `: ${review.note}` : ""}` : "";
  byId("detail-foot").replaceChildren(
    ...(says ? [el("p", { class: "note" }, says)] : []),
    ...(canReview(record)
      ? [
          button("confirmed", "yes", `Confirm ${record.verdict}`),
          button("overruled", "no", `Overrule ${record.verdict}`),
          el("button", { class: "button", data: { does: "note" }, onclick: () => writeNote(record) }, icon("note"), "Note"),
        ]
      : [el("p", { class: "note" }, "Not in the journal: it cannot be reviewed.")]),
  );
}

function findings(record) {
  const items = record.findings.map((finding, index) =>
    el(
      "button",
      { class: "finding", "aria-pressed": "false", onclick: (event) => focusOn(index, event.currentTarget) },
      el("b", {}, `${index + 1}`),
      el("span", {}, finding.description ? asSentence(finding.description) : "Difference"),
      el("b", {}, score(finding.score)),
      el("span", { class: "mono" }, `x ${finding.box[0].toFixed(0)}–${finding.box[2].toFixed(0)}, y ${finding.box[1].toFixed(0)}–${finding.box[3].toFixed(0)} px`),
    ),
  );
  return el("section", {}, el("h3", {}, "What differs"), ...(items.length ? items : [el("p", { class: "note" }, "No place is marked.")]));
}

function timings(record) {
  const stages = Object.entries(record.timings).filter(([name]) => name !== "total_ms");
  const longest = Math.max(record.timings.total_ms, 0.001);
  const row = (name, value) => {
    const bar = el("span", { class: "length" });
    bar.style.width = `${Math.max(0.5, (value / longest) * 100)}%`;
    return el("div", { class: "stage" }, el("span", {}, name), bar, el("span", { class: "amount" }, ms(value)));
  };
  return el("section", {}, el("h3", {}, "Time"), ...stages.map(([name, value]) => row(asWords(name.replace(/_ms$/, "")), value)), row("In all", record.timings.total_ms));
}

function trace(record) {
  const facts = [
    ["Sequence", record.sequence],
    ["Trigger", `${record.trigger_id} (${record.trigger})`],
    ["Station", record.station],
    ["Job", record.job_id],
    ["Product", record.product],
    ["Reference", record.reference_id],
    ["Reference SHA-256", record.reference_sha256],
    ["Engine", record.engine],
    ["Engine SHA-256", record.engine_sha256],
    ["Threshold", record.threshold === null ? null : score(record.threshold)],
    ["Camera", record.camera],
    ["Frame", record.frame_sequence],
    ["Image", record.image_fingerprint],
    ["Size", record.image_size[0] ? `${record.image_size[0]} × ${record.image_size[1]} px` : null],
    ["Simulated", record.is_simulated ? "yes" : null],
    ["Notes", record.notes.join("; ") || null],
  ].filter(([, value]) => value !== null && value !== undefined);
  return el(
    "section",
    {},
    el("h3", {}, "Trace"),
    el("dl", { class: "facts-list" }, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", { class: /SHA|Image|Trigger/.test(name) ? "mono" : "" }, `${value}`)])),
  );
}

function focusOn(index, button) {
  const again = shown.focus === index;
  shown.focus = again ? null : index;
  for (const one of dialog.querySelectorAll(".finding")) one.setAttribute("aria-pressed", String(one === button && !again));
  draw();
}

function draw() {
  const { record, part, reference, focus } = shown;
  const box = focus === null ? null : record.findings[focus].box;
  if (part) {
    byId("part-veil").hidden = true;
    drawPicture(byId("part-canvas"), part, { boxes: boxesOf(record), verdict: record.verdict, view: box && around(box, part) });
  }
  if (reference) {
    byId("reference-veil").hidden = true;
    const places = record.findings.map((finding) => ({ box: onReference(finding.box, record), dashed: true }));
    const same = box && onReference(box, record);
    drawPicture(byId("reference-canvas"), reference, { boxes: places, verdict: record.verdict, view: same && around(same, reference) });
  }
}

function around(box, picture) {
  const side = Math.min(picture.width, picture.height, Math.max(64, ZOOM_MARGIN * Math.max(box[2] - box[0], box[3] - box[1])));
  const place = (low, high, whole) => Math.max(0, Math.min(whole - side, (low + high) / 2 - side / 2));
  return { x: place(box[0], box[2], picture.width), y: place(box[1], box[3], picture.height), width: side, height: side };
}

// The alignment's matrix takes reference pixels to those of the part; this goes back.
function onReference(box, record) {
  const matrix = record.alignment?.matrix;
  if (!matrix) return box;
  const [a, b, tx, c, d, ty] = matrix;
  const area = a * d - b * c;
  if (Math.abs(area) < 1e-9) return box;
  const [x, y] = [(box[0] + box[2]) / 2 - tx, (box[1] + box[3]) / 2 - ty];
  const [cx, cy] = [(d * x - b * y) / area, (a * y - c * x) / area];
  const shrink = 1 / Math.sqrt(Math.abs(area));
  const [half, high] = [((box[2] - box[0]) / 2) * shrink, ((box[3] - box[1]) / 2) * shrink];
  return [cx - half, cy - high, cx + half, cy + high];
}
