// The overview: tiles, variants, charts, pipelines and adapters, applications.

import { byId, make, setHidden, setText, sync } from "./dom.js";
import { totals, variantRows, versionRows } from "./figures.js";
import { duration, number, of, percent } from "./format.js";
import { drawCharts } from "./history.js";
import { bar, dataTable, NONE } from "./table.js";

const weight = (row) => (row.weight === row.declared ? `${row.weight} %` : `${row.weight} % (declared ${row.declared})`);
const drawWeight = (cell, row) => bar(cell, row.weight);
const drawQueue = (cell, row) => cell.classList.toggle("warn", row.queue > 0 && row.queue >= 4 * Math.max(1, row.ready));
const drawReady = (cell, row) => cell.classList.toggle("bad", row.ready === 0 && row.weight > 0 && row.wanted !== 0);

const VARIANTS = dataTable("Variants", [
  { label: "Model", isHead: true, value: (row) => row.model },
  { label: "Variant", value: (row) => row.variant },
  { label: "Weight", value: weight, draw: drawWeight },
  { label: "Replicas", isNumber: true, value: (row) => of(row.ready, row.wanted), draw: drawReady },
  { label: "Also", value: (row) => row.others || NONE },
  { label: "Queue", isNumber: true, value: (row) => number(row.queue), draw: drawQueue },
  { label: "Running", isNumber: true, value: (row) => number(row.running) },
  { label: "Requests/s", isNumber: true, value: (row) => number(row.requests) },
  { label: "Tokens/s", isNumber: true, value: (row) => number(row.tokens) },
  { label: "Errors", isNumber: true, value: (row) => percent(row.errors) },
  { label: "First token p95", isNumber: true, value: (row) => duration(row.ttft) },
  { label: "KV cache", isNumber: true, value: (row) => percent(row.cache) },
  { label: "Engine", value: (row) => row.engine },
]);

const VERSIONS = dataTable("Pipelines and adapters", [
  { label: "Name", isHead: true, value: (row) => row.name },
  { label: "Kind", value: (row) => row.kind },
  { label: "Version", value: (row) => row.version },
  { label: "Weight", value: weight, draw: drawWeight },
  { label: "Made of", isWide: true, value: (row) => row.made },
  { label: "Requests/s", isNumber: true, value: (row) => number(row.requests) },
  { label: "Errors", isNumber: true, value: (row) => percent(row.errors) },
]);

const APPS = dataTable("Applications", [
  { label: "Application", isHead: true, value: (row) => row.name },
  { label: "Status", value: (row) => row.status.toLowerCase().replaceAll("_", " "), draw: (cell, row) => (cell.dataset.mood = mood(row.status)) },
  { label: "Replicas", value: (row) => row.replicas },
  { label: "Message", isWide: true, value: (row) => row.message || NONE },
]);

const MOODS = { RUNNING: "good", DEPLOYING: "warn", DELETING: "warn" };
const mood = (status) => MOODS[status] ?? "bad";
const worst = (apps) => ["bad", "warn"].find((each) => apps.some((app) => mood(app.status) === each)) ?? "good";

export function startOverview() {
  byId("variants").append(VARIANTS.element);
  byId("versions").append(VERSIONS.element);
  byId("apps").append(APPS.element);
}

export function showOverview(documents, timeline) {
  const rows = variantRows(documents);
  const versions = versionRows(documents);
  VARIANTS.update(rows);
  VERSIONS.update(versions);
  setHidden(byId("versions-card"), versions.length === 0);
  APPS.update(documents.status.apps.map(appRow));
  showTiles(documents, rows);
  drawCharts(byId("charts"), timeline, rows);
}

function appRow(app) {
  const states = Object.values(app.deployments).flatMap((each) => Object.entries(each));
  const replicas = states.map(([state, count]) => `${count} ${state.toLowerCase()}`).join(", ");
  return { key: app.name, name: app.name, status: app.status, replicas: replicas || "0", message: app.message.trim().split("\n").at(-1) };
}

function showTiles({ status, rollouts, scaling }, rows) {
  const total = totals(rows);
  const up = status.apps.filter((app) => app.status === "RUNNING").length;
  const table = rollouts?.table.version;
  const routers = Object.values(rollouts?.routers ?? {});
  const budget = scaling?.budget;
  const tiles = [
    { name: "Applications running", value: of(up, status.apps.length), mood: worst(status.apps) },
    { name: "Replicas ready", value: of(total.ready, total.wanted) },
    { name: "Waiting requests", value: number(total.queue) },
    { name: "Running requests", value: number(total.running) },
    { name: "Requests/s", value: number(total.requests) },
    { name: "Tokens/s", value: number(total.tokens) },
    { name: "Accelerators in use", value: budget ? of(budget.in_use, budget.max_accelerators) : "–" },
    { name: "Routers on these weights", value: rollouts ? of(routers.filter((each) => each >= table).length, routers.length) : "–" },
  ];
  sync(byId("tiles"), tiles, {
    key: (tile) => tile.name,
    create: (tile) => make("div", { kind: "tile" }, make("dt", { text: tile.name }), make("dd")),
    update: (made, tile) => {
      setText(made.lastChild, tile.value);
      made.dataset.mood = tile.mood ?? "";
    },
  });
}
