// The timeline of the last minutes, put together from what several Routers have told.

export const FIGURES = [
  { name: "queue_depth", title: "Queue depth" },
  { name: "running", title: "Running requests" },
  { name: "ready", title: "Ready replicas" },
  { name: "weight", title: "Weight", max: 100, unit: " %" },
];

export const keyOf = (model, variant) => JSON.stringify([model, variant]);

// Samples of all Routers lie on the same seconds; what a younger Router does not know, an older one has told before.
export class Timeline {
  #samples = new Map(); // time -> key -> figures
  times = [];
  everyS = 5;
  spanS = 900;

  take({ every_s: everyS, kept_s: spanS, times, series }) {
    Object.assign(this, { everyS, spanS });
    times.forEach((at, place) => {
      const sample = this.#samples.get(at) ?? new Map();
      this.#samples.set(at, sample);
      for (const each of series) if (each.ready[place] !== null) put(sample, each, place);
    });
    this.times = [...this.#samples.keys()].sort((a, b) => a - b).filter((at, _, all) => at > all.at(-1) - spanS);
    for (const at of this.#samples.keys()) if (at < this.times[0]) this.#samples.delete(at);
  }

  get endS() {
    return this.times.at(-1) ?? 0;
  }

  at(time, key) {
    return this.#samples.get(time).get(key) ?? {};
  }

  values(key, name) {
    return this.times.map((time) => this.at(time, key)[name] ?? null);
  }
}

function put(sample, series, place) {
  const key = keyOf(series.model, series.variant);
  const now = Object.fromEntries(FIGURES.map(({ name }) => [name, series[name][place]]));
  // Each Router adds the requests that it holds itself: the most that any has told is nearest to the truth.
  now.queue_depth = Math.max(now.queue_depth, sample.get(key)?.queue_depth ?? 0);
  sample.set(key, now);
}
