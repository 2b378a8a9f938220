// Stations, halt, reset, trigger, theme.
import { post } from "./api.js";
import { ask, attempt, notice } from "./ask.js";
import { byId, el, icon, write } from "./dom.js";
import { addResult, lastRecord, line, on, recordsOf, showStation, stationStatus } from "./line.js";
import { serves, stateInWords } from "./words.js";

let triggering = false;

export function startControl() {
  on(["status", "station", "link", "result"], renderTabs);
  on(["status", "station", "link"], renderControls);
  on(["result", "station"], () => {
    byId("simulated").hidden = !lastRecord()?.is_simulated;
  });
  on(["station"], () => {
    if (line.station) history.replaceState(null, "", `#station=${encodeURIComponent(line.station)}`);
  });
  byId("halt").addEventListener("click", halt);
  byId("reset").addEventListener("click", reset);
  byId("trigger").addEventListener("click", trigger);
  byId("theme").addEventListener("click", () => window.cycleTheme());
  addEventListener("themechange", nameTheme);
  nameTheme();
}

// The station that the address names, before the first status is there.
export function stationOfAddress() {
  const name = new URLSearchParams(location.hash.slice(1)).get("station");
  if (name) line.station = name;
}

function renderTabs() {
  const stations = line.status?.stations ?? [];
  const live = line.link.state === "live";
  const key = JSON.stringify([live, line.station, stations.map((one) => [one.name, one.state, recordsOf(one.name).at(-1)?.verdict])]);
  const place = byId("stations");
  if (place.dataset.shown === key) return;
  place.dataset.shown = key;
  if (stations.length < 2) {
    place.replaceChildren(...stations.map((one) => el("span", { class: "chip" }, one.name)));
    return;
  }
  const focused = document.activeElement?.dataset?.station;
  place.replaceChildren(
    ...stations.map((one) => {
      const verdict = recordsOf(one.name).at(-1)?.verdict;
      const symbol = !live ? "lost" : serves(one.state) ? (verdict ?? "wait") : one.state === "Error" ? "ERROR" : "stop";
      const says = live ? (serves(one.state) ? (verdict ?? "no part yet") : stateInWords(one.state)) : "no connection";
      return el(
        "button",
        { class: "button small", "aria-pressed": String(one.name === line.station), "aria-label": `Station ${one.name}: ${says}`, data: { station: one.name }, onclick: () => showStation(one.name) },
        icon(symbol),
        one.name,
      );
    }),
  );
  if (focused) place.querySelector(`[data-station="${CSS.escape(focused)}"]`)?.focus();
}

function renderControls() {
  const station = stationStatus();
  const live = line.link.state === "live";
  byId("halt").hidden = !station || station.state === "Halted";
  byId("reset").hidden = !station || !["Halted", "Error"].includes(station.state);
  for (const id of ["halt", "reset", "register", "products"]) byId(id).disabled = !live;
  byId("calibrate").disabled = !live || !line.status?.journal;
  byId("trigger-row").hidden = station?.trigger !== "request";
  byId("trigger").disabled = triggering || !live || !station || !serves(station.state);
  write(byId("trigger").lastElementChild, triggering ? "Inspecting…" : "Inspect now");
}

async function halt() {
  const { name } = stationStatus();
  const yes = await ask({
    title: `Halt station ${name}?`,
    text: "The part in hand is finished; then nothing is inspected until somebody resets the station.",
    yes: "Halt",
    danger: true,
  });
  if (yes) await attempt(() => post("/api/halt", { station: name }), `Station ${name} is halted`);
}

async function reset() {
  const { name } = stationStatus();
  await attempt(() => post("/api/reset", { station: name }), `Station ${name} starts again`);
}

async function trigger() {
  triggering = true;
  renderControls();
  try {
    const record = await post("/api/trigger", { station: stationStatus().name });
    addResult(record); // the stream may bring it a moment later; the same number is taken once
  } catch (error) {
    notice(error.message);
  } finally {
    triggering = false;
    renderControls();
  }
}

function nameTheme() {
  const choice = document.documentElement.dataset.themeChoice;
  const words = { auto: "as the device", light: "light", dark: "dark" };
  byId("theme").setAttribute("aria-label", `Colours: ${words[choice]}. Change`);
  byId("theme").title = `Colours: ${words[choice]}`;
}
