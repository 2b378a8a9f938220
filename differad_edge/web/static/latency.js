// Inspection time over the last minutes: the median, and what 95 of 100 parts stay below.
import { byId, el, svg } from "./dom.js";
import { line, on, recordsOf, stationStatus } from "./line.js";
import { ms } from "./words.js";

const SPAN_MS = 300_000;
const BUCKET_MS = 10_000;
const NOW_MS = 60_000; // what the figures below the chart are of
const [LEFT, BOTTOM, TOP] = [44, 20, 8];

let drawnAt = 0;

export function startLatency() {
  on(["result", "station", "status"], render);
  new ResizeObserver(() => {
    drawnAt = 0;
    render();
  }).observe(byId("chart"));
}

function render() {
  const now = Date.now();
  if (now - drawnAt < 900) return;
  drawnAt = now;
  const wide = byId("chart").clientWidth || 320;
  const high = byId("chart").clientHeight || 150;
  const points = buckets(now);
  const due = stationStatus()?.deadline_ms ?? null;
  const highest = Math.max(...points.map((point) => point.p95), 1);
  const top = nice(due && due < highest * 2.5 ? Math.max(due * 1.08, highest * 1.15) : highest * 1.25);
  const x = (at) => LEFT + ((at - now + SPAN_MS) / SPAN_MS) * (wide - LEFT - 8);
  const y = (value) => TOP + (1 - Math.min(value, top) / top) * (high - TOP - BOTTOM);

  const nodes = [];
  for (const value of [0, top / 2, top]) {
    nodes.push(svg("line", { class: "grid", x1: LEFT, x2: wide - 8, y1: y(value), y2: y(value) }));
    nodes.push(svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, `${Number(value.toPrecision(3))}`));
  }
  nodes.push(svg("text", { x: LEFT, y: high - 4 }, "5 min ago"), svg("text", { x: wide - 8, y: high - 4, "text-anchor": "end" }, "now"));
  if (due && due <= top) nodes.push(svg("line", { class: "due", x1: LEFT, x2: wide - 8, y1: y(due), y2: y(due) }));
  if (points.length) {
    const there = points.map((point) => `${x(point.at).toFixed(1)},${y(point.p95).toFixed(1)}`);
    const back = points.map((point) => `${x(point.at).toFixed(1)},${y(point.p50).toFixed(1)}`);
    nodes.push(svg("polygon", { class: "band", points: [...there, ...back.toReversed()].join(" ") }));
    nodes.push(svg("polyline", { class: "p95", points: there.join(" ") }));
    nodes.push(svg("polyline", { class: "p50", points: back.join(" ") }));
    const last = points.at(-1);
    nodes.push(svg("circle", { class: "end95", cx: x(last.at), cy: y(last.p95), r: 3.5 }));
    nodes.push(svg("circle", { class: "end50", cx: x(last.at), cy: y(last.p50), r: 4 }));
  }
  const chart = byId("chart");
  chart.setAttribute("viewBox", `0 0 ${wide} ${high}`);
  chart.replaceChildren(...nodes);
  const latest = recordsOf().filter((record) => now - record.arrived <= NOW_MS);
  legend(latest.length ? percentiles(latest.map((record) => record.timings.total_ms)) : null, due);
}

function buckets(now) {
  const sorted = new Map();
  for (const record of recordsOf()) {
    const index = Math.floor(record.arrived / BUCKET_MS);
    if (now - record.arrived > SPAN_MS || record.arrived > now + BUCKET_MS) continue;
    if (!sorted.has(index)) sorted.set(index, []);
    sorted.get(index).push(record.timings.total_ms);
  }
  return [...sorted].map(([index, values]) => ({ at: Math.min(now, (index + 0.5) * BUCKET_MS), ...percentiles(values) }));
}

function percentiles(values) {
  values.sort((a, b) => a - b);
  const rank = (share) => values[Math.ceil(share * values.length) - 1];
  return { p50: rank(0.5), p95: rank(0.95) };
}

function legend(last, due) {
  const whole = stationStatus()?.latency_ms;
  byId("legend").replaceChildren(
    el("span", { class: "p50" }, el("i"), "p50 ", el("b", {}, ms(last?.p50))),
    el("span", { class: "p95" }, el("i"), "p95 ", el("b", {}, ms(last?.p95))),
    whole ? el("span", { class: "note" }, `Trigger to result: p50 ${ms(whole.p50)}, p95 ${ms(whole.p95)}`) : "",
    due ? el("span", { class: "note" }, `Deadline ${ms(due)}`) : "",
  );
  byId("chart").setAttribute("aria-label", `Inspection time: p50 ${ms(last?.p50)}, p95 ${ms(last?.p95)}`);
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value) * power;
}
