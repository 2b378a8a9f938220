// Rate, yield, counts; frames that were not inspected; alarms and the state of the connection.
import { byId, el, icon, write } from "./dom.js";
import { line, on, stationStatus } from "./line.js";
import { asWords, clockTime, count, serves, share, stateInWords } from "./words.js";

const VERDICTS = ["OK", "NG", "UNDECIDED", "ERROR"];

export function startNumbers() {
  on(["status", "station"], renderFigures);
  on(["status", "station"], renderDrops);
  on(["status", "station", "link"], renderChips);
  on(["status", "link"], renderBanners);
}

function renderFigures() {
  const station = stationStatus();
  if (!station) return;
  const counts = station.counts ?? {};
  const total = VERDICTS.reduce((sum, verdict) => sum + (counts[verdict] ?? 0), 0);
  const decimals = station.rate_hz * 60 < 100 ? 1 : 0;
  byId("figures").replaceChildren(
    figure("Rate", (station.rate_hz * 60).toFixed(decimals), "/min", "wide"),
    figure("Yield", share(counts.OK ?? 0, total), total ? "%" : "", "wide"),
    ...VERDICTS.map((verdict) => figure(verdict, count(counts[verdict]), "", "", verdict)),
  );
}

function figure(name, value, unit, kind = "", verdict = undefined) {
  return el(
    "div",
    { class: `figure ${kind}`, data: verdict ? { verdict } : {} },
    el("dt", {}, verdict ? icon(verdict) : null, name),
    el("dd", {}, value, unit ? el("small", {}, ` ${unit}`) : null),
  );
}

function renderDrops() {
  const station = stationStatus();
  if (!station) return;
  const causes = Object.entries(station.dropped ?? {}).sort((a, b) => b[1] - a[1]);
  const total = causes.reduce((sum, [, number]) => sum + number, 0);
  write(byId("drops-note"), station.waiting ? `${count(station.waiting)} waiting` : "");
  byId("drop-rows").replaceChildren(
    ...(total
      ? causes.map(([cause, number]) => el("li", {}, el("span", {}, asWords(cause)), el("b", {}, count(number))))
      : [el("li", { class: "note" }, "None: every frame had its result.")]),
  );
}

function renderChips() {
  const station = stationStatus();
  const live = line.link.state === "live";
  const state = byId("state");
  state.hidden = !station || !live;
  if (station) {
    write(state.lastElementChild, stateInWords(station.state));
    state.dataset.tone = serves(station.state) ? "good" : station.state === "Error" ? "bad" : "wait";
  }
  const link = byId("link");
  const words = { connecting: "Connecting", live: "Live", silent: "Line silent", lost: "No connection" };
  link.dataset.tone = live ? "good" : line.link.state === "connecting" ? "wait" : "bad";
  const slow = line.lostMessages ? ` · ${count(line.lostMessages)} updates missed` : "";
  // While it lives, the state says so; a second light for the same would only take room.
  link.hidden = live && !slow;
  write(link.lastElementChild, words[line.link.state] + (live ? slow : ""));
  document.title = live && station ? `${stateInWords(station.state)} · ${station.name} · differad-edge` : `${words[line.link.state]} · differad-edge`;
}

function renderBanners() {
  const banners = [];
  if (line.link.state === "lost" || line.link.state === "silent") {
    const what = line.link.state === "lost" ? "No connection to the line" : "The line has been silent";
    banners.push(banner("lost", "lost", `${what} since ${clockTime(line.link.since)}`, "Nothing on this page is current."));
  } else {
    for (const alarm of line.status?.alarms ?? []) {
      const where = alarm.station ? `${alarm.station}: ` : "";
      banners.push(banner("", "ERROR", where + asWords(alarm.code), `${alarm.message} (since ${clockTime(alarm.since_utc)})`));
    }
    for (const station of line.status?.stations ?? []) {
      if (station.camera?.fault) banners.push(banner("", "camera", `${station.name}: camera`, station.camera.fault));
    }
    if (line.status?.journal && !line.status.journal.healthy) {
      banners.push(banner("", "ERROR", "Journal", "Results are not being written down."));
    }
  }
  const key = banners.map((node) => node.textContent).join("\n");
  const place = byId("banners");
  if (place.dataset.shown === key) return; // said once, not every two seconds
  place.dataset.shown = key;
  place.replaceChildren(...banners);
}

const banner = (kind, symbol, title, text) =>
  el("div", { class: `banner ${kind}` }, icon(symbol), el("strong", {}, title), el("span", {}, text));
