// What an operator may do to a rollout, and the phases in which it is possible; the platform has the last word.

export const ACTIVE = ["waiting", "running", "paused", "held"];

export const COMMANDS = [
  { verb: "pause", label: "Pause", phases: ["waiting", "running"] },
  { verb: "resume", label: "Resume", phases: ["paused", "held"] },
  { verb: "promote", label: "Promote", phases: ["waiting", "running", "paused", "held"] },
  { verb: "promote-fully", label: "Promote fully", phases: ["waiting", "running", "paused", "held"] },
  { verb: "restart", label: "Restart", phases: null },
  { verb: "abort", label: "Abort", phases: null },
];

export function isAllowed({ verb, phases }, split) {
  const hasRollout = split.steps.length > 0;
  if (verb === "abort") return Object.keys(split.weights).length > 1 && !["aborted", "rolled_back"].includes(split.phase);
  if (verb === "restart") return hasRollout;
  return hasRollout && phases.includes(split.phase);
}

// What happens, in the words of the question that is asked first.
export function consequence(verb, split) {
  const { name, variant, baseline, step, steps } = split;
  const next = steps.filter((each) => each.weight > (split.weights[variant] ?? 0))[0];
  const last = steps.at(-1);
  return {
    pause: `${name} stays at the step that it has reached. Gates are watched on, and a failed one still acts.`,
    resume: `${name} goes on from step ${step + 1}. Its gates begin anew.`,
    promote: `${variant} of ${name} goes on ${next ? `to ${next.weight} % ` : ""}now, whatever the gates say.`,
    "promote-fully": `${variant} of ${name} gets ${last?.weight} % now, whatever the gates say, and the rollout is complete.`,
    restart: `The rollout of ${name} begins anew, from the declared weights.`,
    abort: `All conversations of ${name} go back to ${baseline} now. Requests that wait elsewhere for their first byte are taken back.`,
  }[verb];
}
