// Line charts over time in SVG: steps, since a figure holds until the next sample. What is not known is a gap.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 118;
const PAD = { left: 44, right: 10, top: 8, bottom: 20 };
export const KINDS = 6; // kinds of lines in the style sheet

function put(parent, tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

// The end of an axis from 0: 1, 2, 4, 5 or 10 times a power of ten, so that its half is a round number from 4 on.
export function niceMax(most) {
  if (most <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 5, 10].map((factor) => factor * power).find((end) => end >= most);
}

export class Chart {
  constructor(title, { max = null, unit = "" } = {}) {
    this.title = title;
    this.max = max;
    this.unit = unit;
    this.element = document.createElementNS(SVG, "svg");
    this.element.setAttribute("role", "img");
    this.element.setAttribute("class", "chart");
    this.element.setAttribute("height", HEIGHT);
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  // series: [{name, values}], as long as times; the chart ends at endS and shows spanS seconds.
  update({ times, series, endS, spanS, everyS }) {
    this.data = { times, series, endS, spanS, everyS };
    this.element.setAttribute("aria-label", `${this.title}. ${series.map((each) => this.#inWords(each)).join("; ")}`);
    this.#draw();
  }

  #inWords({ name, values }) {
    const known = values.filter((value) => value !== null);
    if (!known.length) return `${name}: no figures`;
    return `${name}: now ${known.at(-1)}${this.unit}, lowest ${Math.min(...known)}, highest ${Math.max(...known)}`;
  }

  #draw() {
    const width = this.element.clientWidth;
    if (!this.data || !width) return;
    const { series, endS, spanS } = this.data;
    this.element.replaceChildren();
    this.element.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const top = this.max ?? niceMax(Math.max(0, ...series.flatMap((each) => each.values)));
    const x = (at) => PAD.left + ((at - endS + spanS) / spanS) * (width - PAD.left - PAD.right);
    const y = (value) => HEIGHT - PAD.bottom - (value / top) * (HEIGHT - PAD.top - PAD.bottom);
    this.#axes(width, { top, x, y });
    // The first one is drawn last: it is the one that must be seen where lines meet.
    series.map((each, index) => [each, index]).reverse().forEach(([each, index]) => this.#line(each.values, index, { x, y }));
  }

  #axes(width, { top, x, y }) {
    const { endS, spanS } = this.data;
    const marks = top > 2 || top === this.max ? [0, top / 2, top] : [0, top];
    for (const value of marks) {
      put(this.element, "line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) });
      put(this.element, "text", { x: PAD.left - 6, y: y(value) + 4, "text-anchor": "end" }, `${value}${this.unit}`);
    }
    const minutes = spanS / 60;
    for (const back of [minutes, (2 * minutes) / 3, minutes / 3, 0]) {
      const anchor = back === minutes ? "start" : back ? "middle" : "end";
      put(this.element, "text", { x: x(endS - 60 * back), y: HEIGHT - 5, "text-anchor": anchor }, back ? `−${Math.round(back)}${back === minutes ? " min" : ""}` : "now");
    }
  }

  #line(values, index, { x, y }) {
    const { times, everyS, endS, spanS } = this.data;
    let path = "";
    let last = null; // the sample before, if it was right before
    times.forEach((at, place) => {
      const value = values[place];
      if (value === null || at < endS - spanS) return void (last = null);
      const follows = last !== null && at - times[last] <= 2 * everyS;
      path += follows ? `H${x(at).toFixed(1)}V${y(value).toFixed(1)}` : `M${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      last = place;
    });
    if (!path) return;
    put(this.element, "path", { class: `line kind-${index % KINDS}`, d: path });
    if (last !== null) put(this.element, "circle", { class: `dot kind-${index % KINDS}`, cx: x(times[last]), cy: y(values[last]), r: 3 });
  }
}
