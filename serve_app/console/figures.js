// The figures of the overview, from the documents of the admin API. `manta top` makes its rows alike.

const MINUTE_S = 60; // the window of what Rollouts counts

// One row per variant of a model.
export function variantRows({ status, rollouts, scaling }) {
  const apps = new Map((scaling?.apps ?? []).map((app) => [app.name, app]));
  return status.models.flatMap((model) =>
    model.variants.map((variant) => {
      const app = apps.get(`llm.${model.name}.${variant.name}`);
      return {
        key: JSON.stringify([model.name, variant.name]),
        model: model.name,
        variant: variant.name,
        engine: variant.engine,
        weight: variant.weight,
        declared: variant.declared_weight,
        ready: variant.replicas.ready,
        others: others(variant),
        wanted: wanted(app),
        queue: variant.queue_depth + (app?.held ?? 0),
        running: variant.running,
        cache: variant.kv_cache_usage_ratio,
        ...rates(rollouts, model.name, variant.name),
      };
    }),
  );
}

// One row per version of a pipeline or an adapter.
export function versionRows({ status, rollouts }) {
  const adapters = status.models.flatMap((model) => model.adapters ?? []);
  const parts = [
    ...status.pipelines.map((each) => ({ ...each, kind: "pipeline" })),
    ...adapters.map((each) => ({ ...each, kind: "adapter" })),
  ];
  return parts.flatMap(({ name, kind, versions }) =>
    versions.map((version) => ({
      key: JSON.stringify([name, version.name]),
      name,
      kind,
      version: version.name,
      weight: version.weight,
      declared: version.declared_weight,
      made: kind === "pipeline" ? `${version.collection} by ${version.embedder}, answered by ${version.model}` : version.source,
      ...rates(rollouts, name, version.name),
    })),
  );
}

export function totals(rows) {
  const sum = (name) => rows.reduce((total, row) => (row[name] === null || total === null ? null : total + row[name]), 0);
  return { ready: sum("ready"), wanted: sum("wanted"), queue: sum("queue"), running: sum("running"), requests: sum("requests"), tokens: sum("tokens") };
}

// Starting and draining replicas in words, with what the starting ones do.
function others(variant) {
  const phases = variant.replicas_detail.filter((each) => each.state === "starting" && each.phase).map((each) => each.phase);
  const words = [];
  if (variant.replicas.starting) words.push(`${variant.replicas.starting} starting${phases.length ? ` (${[...new Set(phases)].sort().join(", ")})` : ""}`);
  if (variant.replicas.draining) words.push(`${variant.replicas.draining} draining`);
  return words.join(", ");
}

function wanted(app) {
  if (!app) return null;
  return app.is_fixed ? app.settings.min_replicas : (app.decision?.target ?? null);
}

function rates(rollouts, name, variant) {
  const last = rollouts?.stats.find((each) => each.name === name && each.variant === variant)?.last_minute;
  if (!last) return { requests: null, tokens: null, errors: null, ttft: null };
  return { requests: last.requests / MINUTE_S, tokens: last.tokens / MINUTE_S, errors: last.error_rate, ttft: last.ttft_s.p95 };
}
