// The product of the station: reference, threshold and what it promises; choosing, registering, calibrating.
import { get, post, referencePath } from "./api.js";
import { ask, attempt } from "./ask.js";
import { byId, el, write } from "./dom.js";
import { changed, line, on, stationStatus } from "./line.js";
import { score, shortHash } from "./words.js";

let known = ""; // product, version and hash that are shown

export function startProduct() {
  on(["status", "station"], render);
  byId("products").addEventListener("change", select);
  byId("register").addEventListener("click", register);
  byId("calibrate").addEventListener("click", calibrate);
}

function render() {
  const station = stationStatus();
  if (!station) return;
  renderChoice(station);
  const about = line.status.products?.[station.product] ?? {};
  const key = `${station.product} ${about.version} ${about.threshold} ${about.reference_sha256}`;
  if (key !== known) {
    known = key;
    load(station.product, about);
  }
}

function renderChoice(station) {
  const select = byId("products");
  const names = [...new Set([station.product, ...(station.products ?? [])])];
  if (select.dataset.names !== names.join("\n")) {
    select.dataset.names = names.join("\n");
    select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  }
  if (document.activeElement !== select) select.value = station.product;
}

async function load(product, about) {
  const image = byId("reference");
  image.hidden = false;
  image.alt = `Reference picture of ${product}`;
  image.src = referencePath(product, about.reference_sha256);
  image.onerror = () => (image.hidden = true);
  let details = {};
  try {
    details = await get(`/api/products/${encodeURIComponent(product)}`);
  } catch {
    // the status alone, then
  }
  if (product !== stationStatus()?.product) return;
  const statement = details.calibration?.statement ?? details.calibration ?? null;
  const facts = [
    ["Threshold", el("span", { class: "threshold" }, score(details.threshold ?? about.threshold))],
    ["Calibration", statement ?? "Not calibrated: the engine's own threshold counts."],
    ["Reference", reference(details, about)],
  ];
  byId("product-facts").replaceChildren(...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  write(byId("product-title"), `Product ${product}`);
}

function reference(details, about) {
  const samples = details.references?.length > 1 ? `, ${details.references.length} golden samples` : "";
  const hash = el("span", { class: "mono", title: about.reference_sha256 ?? "" }, shortHash(about.reference_sha256));
  return el("span", {}, `Version ${details.version ?? about.version ?? "–"}${samples} · `, hash);
}

async function select(event) {
  const station = stationStatus();
  const product = event.target.value;
  event.target.blur();
  if (product === station.product) return;
  const yes = await ask({
    title: `Inspect ${product} from now on?`,
    text: `Station ${station.name} now compares with ${station.product}. The part in hand keeps it; the next one is compared with ${product}.`,
    yes: `Change to ${product}`,
  });
  if (yes) await attempt(() => post("/api/select", { product, station: station.name }), `Station ${station.name} inspects ${product}`);
  event.target.value = stationStatus().product;
  changed("status");
}

async function register() {
  const station = stationStatus();
  const held = await attempt(() => post("/api/snapshot", { station: station.name }));
  if (!held) return;
  const name = el("input", { type: "text", maxlength: 64, required: true, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", autocomplete: "off" });
  name.value = station.product;
  const warning = el("p", { class: "note" });
  const warn = () => {
    const version = line.status.products?.[name.value]?.version;
    write(warning, version ? `${name.value} has a golden sample already (version ${version}). This picture takes its place; its calibration has to be made anew.` : "A new product.");
  };
  name.addEventListener("input", warn);
  warn();
  const yes = await ask({
    title: "Register this picture as golden sample?",
    text: "Every part is compared with it from then on. Look closely: what is wrong here will count as right.",
    content: [el("img", { src: `/api/snapshot/${held.snapshot}.jpg`, alt: "The picture that will be registered" }), el("label", {}, "Product", name), warning],
    yes: "Register",
    danger: true,
    check: () => name.reportValidity(),
  });
  if (!yes) return;
  const product = name.value;
  await attempt(() => post("/api/register", { product, snapshot: held.snapshot }), `${product} is registered`);
}

async function calibrate() {
  const { product } = stationStatus();
  const yes = await ask({
    title: `Calibrate ${product} from reviews?`,
    text: "The threshold is fitted to the parts that reviews call good: confirmed OK, and overruled NG.",
    yes: "Calibrate",
  });
  if (yes && (await attempt(() => post("/api/calibrate", { product }), `${product} is calibrated`))) {
    known = "";
    changed("status");
  }
}
