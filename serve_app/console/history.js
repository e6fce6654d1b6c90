// The timeline as charts: for each model its variants' queue, running requests, replicas and weights; and as a table.

import { Chart, KINDS } from "./chart.js";
import { make, sync } from "./dom.js";
import { clock } from "./format.js";
import { dataTable } from "./table.js";
import { FIGURES, keyOf } from "./timeline.js";

const TABLE_EVERY_S = 60;

export function drawCharts(parent, timeline, rows) {
  const models = [...new Set(rows.map((row) => row.model))];
  sync(parent, models, {
    key: (model) => model,
    create: (model) => new ModelCard(model).element,
    update: (element, model) => element.card.update(rows.filter((row) => row.model === model).map((row) => row.variant), timeline),
  });
}

class ModelCard {
  constructor(model) {
    this.model = model;
    this.charts = FIGURES.map((figure) => new Chart(`${figure.title} of ${model} in the last 15 minutes`, figure));
    this.legend = make("ul", { kind: "legend", "aria-label": `Variants of ${model}` });
    this.table = minuteTable(model);
    const plots = this.charts.map((chart, index) => make("figure", {}, make("figcaption", { text: FIGURES[index].title }), chart.element));
    const scrolled = make("div", { kind: "scroll", tabindex: "0", role: "region", "aria-label": `Minutes of ${model}` }, this.table.element);
    this.details = make("details", { on: { toggle: () => this.#fill() } }, make("summary", { text: "The same as a table" }), scrolled);
    const title = make("h3", { text: `${model}: last 15 minutes` });
    this.element = make("div", { kind: "card" }, make("div", { kind: "line" }, title, this.legend), make("div", { kind: "plots" }, ...plots), this.details);
    this.element.card = this;
  }

  update(variants, timeline) {
    Object.assign(this, { variants, timeline });
    this.#drawLegend();
    const { times, endS, spanS, everyS } = timeline;
    this.charts.forEach((chart, index) => {
      const { name } = FIGURES[index];
      const series = variants.map((variant) => ({ name: variant, values: timeline.values(keyOf(this.model, variant), name) }));
      chart.update({ times, series, endS, spanS, everyS });
    });
    this.#fill();
  }

  #drawLegend() {
    const items = this.variants.map((name, index) => ({ name, index }));
    sync(this.legend, items, {
      key: (item) => item.name,
      create: ({ name }) => make("li", {}, make("span", { kind: "swatch", "aria-hidden": "true" }), make("span", { text: name })),
      update: (made, { index }) => (made.firstChild.className = `swatch kind-${index % KINDS}`),
    });
  }

  #fill() {
    if (!this.details.open || !this.timeline) return;
    const { times, endS } = this.timeline;
    const shown = times.filter((at) => at % TABLE_EVERY_S === 0 || at === endS).reverse();
    const row = (at, variant) => ({ key: `${at} ${variant}`, at, variant, ...this.timeline.at(at, keyOf(this.model, variant)) });
    this.table.update(shown.flatMap((at) => this.variants.map((variant) => row(at, variant))));
  }
}

const minuteTable = (model) =>
  dataTable(`Figures of ${model} by the minute`, [
    { label: "Time", isHead: true, value: (row) => clock(row.at) },
    { label: "Variant", value: (row) => row.variant },
    ...FIGURES.map(({ name, title, unit = "" }) => ({
      label: title,
      isNumber: true,
      value: (row) => (row[name] === undefined ? "–" : `${row[name]}${unit}`),
    })),
  ]);
