// Rollouts: phase, steps, weights, gates with their figures, what was decided, and the operator's commands.

import { getJson, postJson } from "./api.js";
import { ACTIVE, COMMANDS, consequence, isAllowed } from "./commands.js";
import { confirmed } from "./confirm.js";
import { byId, make, say, setHidden, setText, sync } from "./dom.js";
import { duration, number, percent, span } from "./format.js";
import { bar, dataTable, NONE } from "./table.js";

const ALL = "admin/rollouts";
const pathOf = (name) => `${ALL}/${encodeURIComponent(name)}`;
const MOODS = { rolled_back: "bad", held: "bad", aborted: "bad", completed: "good", running: "good", paused: "warn", waiting: "warn" };

export function showRollouts(document, { refresh }) {
  const splits = document.splits.filter((split) => Object.keys(split.weights).length > 1);
  const active = splits.filter((split) => ACTIVE.includes(split.phase)).length;
  setHidden(byId("active-rollouts"), active === 0);
  setText(byId("active-rollouts"), `${active} active`);
  setHidden(byId("rollouts-none"), splits.length > 0);
  sync(byId("splits"), splits, {
    key: (split) => split.name,
    create: (split) => new SplitCard(split.name, refresh).element,
    update: (element, split) => element.card.update(split, document.stats.filter((each) => each.name === split.name)),
  });
}

class SplitCard {
  constructor(name, refresh) {
    this.name = name;
    this.refresh = refresh;
    this.title = make("h3", { text: name, tabindex: "-1" });
    this.phase = make("span", { kind: "badge" });
    this.where = make("p", { kind: "where" });
    this.steps = make("ol", { kind: "steps", "aria-label": `Steps of ${name}` });
    this.reason = make("p", { kind: "soft" });
    this.weights = weightTable(name);
    this.gates = gateTable(name);
    this.gatesPart = make("div", {}, make("h4", { text: "Gates" }), this.gates.element);
    this.problem = make("p", { kind: "notice bad", role: "alert", hidden: true });
    this.buttons = COMMANDS.map((command) => this.#button(command));
    this.decisions = new Decisions(name);
    this.element = make(
      "article",
      { kind: "card", "aria-label": `Rollout of ${name}` },
      make("div", { kind: "line" }, this.title, this.phase),
      this.where,
      this.steps,
      this.reason,
      this.weights.element,
      this.gatesPart,
      this.problem,
      make("div", { kind: "line commands" }, ...this.buttons),
      this.decisions.element,
    );
    this.element.card = this;
  }

  update(split, stats) {
    this.split = split;
    setText(this.phase, (split.phase ?? "plain weights").replaceAll("_", " "));
    this.phase.dataset.mood = MOODS[split.phase] ?? "";
    setText(this.where, whereabouts(split));
    setText(this.reason, because(split.reason));
    setHidden(this.reason, !split.reason);
    this.#steps(split);
    this.weights.update(Object.keys(split.weights).map((variant) => weightRow(split, variant, stats)));
    setHidden(this.gatesPart, split.verdict === null || !split.readings.length);
    this.gates.update(split.readings.map((reading) => ({ key: reading.gate, ...reading })));
    this.buttons.forEach((button, index) => setHidden(button, !isAllowed(COMMANDS[index], split)));
    this.decisions.update(split);
  }

  #steps(split) {
    setHidden(this.steps, !split.steps.length);
    const done = split.phase === "completed" ? split.steps.length : (split.step ?? -1);
    sync(this.steps, split.steps.map((step, index) => ({ ...step, index })), {
      key: (step) => step.index,
      create: () => make("li"),
      update: (made, step) => {
        const stage = step.index < done ? "passed" : step.index === done ? "current" : "to come";
        setText(made, `${step.weight} %`);
        made.dataset.stage = stage;
        if (stage === "current") made.setAttribute("aria-current", "step");
        else made.removeAttribute("aria-current");
      },
    });
  }

  #button(command) {
    const isDangerous = command.verb === "abort";
    const label = `${command.label} the rollout of ${this.name}`;
    return make("button", { type: "button", text: command.label, kind: isDangerous ? "danger" : "", "aria-label": label, on: { click: () => this.#command(command) } });
  }

  async #command({ verb, label }) {
    const isSure = await confirmed({ title: `${label} ${this.name}?`, text: consequence(verb, this.split), yes: label, isDangerous: verb === "abort" });
    if (!isSure) return;
    try {
      const made = await postJson(`${pathOf(this.name)}/${verb}`);
      setHidden(this.problem, true);
      say(`${this.name}: ${made.action}`);
    } catch (error) {
      setText(this.problem, error.message);
      setHidden(this.problem, false);
    }
    await this.refresh();
    this.title.focus(); // the button may be gone
  }
}

// The reason of what an operator has ordered begins with "by" and names the key.
const because = (reason) => (reason.startsWith("by ") ? `Ordered ${reason}.` : reason && `Because: ${reason}`);

function whereabouts(split) {
  const { phase, step, steps, step_since_s: sinceS } = split;
  if (phase === null) return "No rollout is declared; the declared weights are in force.";
  const since = span(Date.now() / 1000 - sinceS);
  if (!ACTIVE.includes(phase)) return `Since ${since}.`;
  if (step < 0) return `Before the first of ${steps.length} steps, for ${since}.`;
  return `Step ${step + 1} of ${steps.length}, for ${since} of at least ${span(steps[step].pause)}. Replicas lost: ${split.crashes}.`;
}

function weightRow(split, variant, stats) {
  const last = stats.find((each) => each.variant === variant)?.last_minute;
  return {
    key: variant,
    variant,
    role: [split.baseline === variant && "baseline", split.variant === variant && variant !== "canary" && "canary", split.withdrawn.includes(variant) && "withdrawn"].filter(Boolean).join(", "),
    weight: split.weights[variant],
    declared: split.declared_weights[variant] ?? split.weights[variant],
    last,
  };
}

const weightTable = (name) =>
  dataTable(`Weights of ${name}`, [
    { label: "Variant", isHead: true, value: (row) => (row.role ? `${row.variant} (${row.role})` : row.variant) },
    { label: "Weight", value: (row) => (row.weight === row.declared ? `${row.weight} %` : `${row.weight} % (declared ${row.declared})`), draw: (cell, row) => bar(cell, row.weight) },
    { label: "Requests/min", isNumber: true, value: (row) => number(row.last?.requests) },
    { label: "Errors", isNumber: true, value: (row) => percent(row.last?.error_rate) },
    { label: "First token p50 / p95", isNumber: true, value: (row) => pair(row.last?.ttft_s) },
    { label: "Gap p50 / p95", isNumber: true, value: (row) => pair(row.last?.itl_s) },
  ]);

const pair = (quantiles) => (quantiles && quantiles.p50 !== null ? `${duration(quantiles.p50)} / ${duration(quantiles.p95)}` : "–");
const part = (have, needed) => (have === null || !needed ? "–" : percent(Math.max(0, have / needed)));
const GATE_MOODS = { promote: "good", roll_back: "bad", wait: "" };

const gateTable = (name) =>
  dataTable(`Gates of ${name}`, [
    { label: "Gate", isHead: true, value: (row) => row.gate.replaceAll("_", " ") },
    { label: "Verdict", value: (row) => row.verdict.replaceAll("_", " "), draw: (cell, row) => (cell.dataset.mood = GATE_MOODS[row.verdict] ?? "") },
    { label: "Observed", isNumber: true, value: (row) => percent(row.observed_rate) },
    { label: "Allowed", isNumber: true, value: (row) => percent(row.allowed_rate) },
    { label: "Threshold", isNumber: true, value: (row) => duration(row.threshold_s) },
    { label: "Requests", isNumber: true, value: (row) => number(row.attempts) },
    { label: "Evidence against", isNumber: true, value: (row) => part(row.evidence, row.evidence_needed) },
    { label: "Evidence for", isNumber: true, value: (row) => part(row.acceptance, row.acceptance_needed) },
    { label: "Reason", isWide: true, value: (row) => row.reason || NONE },
  ]);

// What was decided; asked for only while it is open, and again when the rollout has moved.
class Decisions {
  #shown = null;
  #stamp = "";

  constructor(name) {
    this.name = name;
    this.list = make("ol", { kind: "decisions" });
    this.element = make("details", { on: { toggle: () => this.#fill() } }, make("summary", { text: "Decisions" }), this.list);
  }

  update(split) {
    this.#stamp = JSON.stringify([split.phase, split.step, split.weights, split.reason]);
    this.#fill();
  }

  async #fill() {
    if (!this.element.open || this.#shown === this.#stamp) return;
    this.#shown = this.#stamp;
    let lines;
    try {
      const { decisions } = await getJson(`${pathOf(this.name)}/history`);
      lines = decisions.slice(-20).reverse().map(decisionLine);
    } catch (error) {
      this.#shown = null;
      lines = [error.message];
    }
    this.list.replaceChildren(...(lines.length ? lines : ["Nothing was decided yet."]).map((text) => make("li", { text })));
  }
}

function decisionLine(made) {
  const weights = Object.entries(made.weights).map(([variant, now]) => {
    const before = made.before[variant] ?? now;
    return before === now ? `${variant} ${now} %` : `${variant} ${before} → ${now} %`;
  });
  const at = new Date(1000 * made.at_s).toLocaleString("en-GB");
  return `${at}: ${made.action.replaceAll("_", " ")}; ${weights.join(", ")}${made.reason ? `; ${made.reason}` : ""}`;
}
