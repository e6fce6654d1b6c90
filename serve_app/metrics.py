"""Every metric: its name, kind, meaning and labels. Labels are from closed sets, never ids of requests, users or tenants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, as it is declared to whatever exports it.

    ``buckets`` are the upper ends of a histogram's buckets, in the metric's unit; the one without an end is implied.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def grid(low_s: float, high_s: float, *, every: int) -> tuple[float, ...]:
    """Return ends of buckets from the grid that Routers count durations on, ``1e-5 * 1.05**i``, every so many steps.

    Ends that lie on the grid, to four digits, make what is exported exact: no count is spread over two buckets.
    """
    ends, index = [], 0
    while (end := 1e-5 * 1.05**index) <= high_s:
        if end >= low_s:
            ends.append(float(f"{end:.4g}"))
        index += every
    return tuple(ends)


# Each end is 22 % over the one before, so that a quantile is off by 10 % at most when durations spread evenly in a bucket.
FIRST_TOKEN_BUCKETS = grid(0.005, 130.0, every=4)
GAP_BUCKETS = grid(0.001, 5.0, every=4)
ANSWER_BUCKETS = grid(0.005, 1300.0, every=8)
STAGE_BUCKETS = grid(0.0005, 130.0, every=8)
PASSAGE_BUCKETS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)

# What clients see, by Router. ``model`` is what they asked for: a model, adapter, pipeline or embedder; ``none`` while
# nobody knows, as of a request with a wrong key. ``variant`` is the pipeline's version where a pipeline was asked.
REQUESTS = Metric(
    "manta_requests_total", "counter", "Requests that ended, by what became of them.", ("front", "model", "variant", "outcome")
)
REQUEST_SECONDS = Metric(
    "manta_request_seconds",
    "histogram",
    "From a request's arrival to the end of its answer, of those that ended well.",
    ("model", "variant"),
    ANSWER_BUCKETS,
)
FIRST_TOKEN_SECONDS = Metric(
    "manta_time_to_first_token_seconds",
    "histogram",
    "From a streaming request's arrival to its first event.",
    ("model", "variant"),
    FIRST_TOKEN_BUCKETS,
)
GAP_SECONDS = Metric(
    "manta_inter_token_seconds", "histogram", "Gaps between the events of streams.", ("model", "variant"), GAP_BUCKETS
)
QUEUE_WAIT_SECONDS = Metric(
    "manta_queue_wait_seconds",
    "histogram",
    "How long requests waited for a place on a replica, retries included.",
    ("model", "variant"),
    STAGE_BUCKETS,
)
STAGE_SECONDS = Metric(
    "manta_stage_seconds",
    "histogram",
    "What the stages of a request took in the Router: authenticate, admit, condense, "
    "retrieve, prompt, embed, queue, first_token, answer, stream.",
    ("model", "stage"),
    STAGE_BUCKETS,
)
STAGE_FAILURES = Metric(
    "manta_stage_failures_total",
    "counter",
    "Stages that ended in an error, also where another attempt followed.",
    ("model", "stage"),
)
STAGES_SKIPPED = Metric(
    "manta_stages_skipped_total",
    "counter",
    "Stages that a pipeline's answer does without (`on_late_retrieval: skip`), by why: late, unavailable.",
    ("pipeline", "stage", "reason"),
)
TOKENS = Metric(
    "manta_tokens_total",
    "counter",
    "Tokens of requests (`prompt`) and answers (`completion`); estimated where no answer tells its usage.",
    ("model", "variant", "direction"),
)
STREAMS_OPEN = Metric("manta_streams_open_count", "gauge", "Streams that are open now.", ("model", "variant"))
HELD_REQUESTS = Metric("manta_held_requests_count", "gauge", "Requests that wait in a Router now.", ("model", "variant"))
RETRIES = Metric(
    "manta_retries_total", "counter", "Attempts that did not answer and were followed by another.", ("model", "outcome")
)
STREAMS_CONTINUED = Metric(
    "manta_streams_continued_total",
    "counter",
    "Times that a stream went on at another replica after its own had failed.",
    ("model",),
)
EJECTIONS = Metric(
    "manta_replica_ejections_total",
    "counter",
    "Times that a Router left a replica alone, by why: unreachable, server_error, timeout, broken, draining.",
    ("model", "variant", "reason"),
)
EJECTED_REPLICAS = Metric(
    "manta_ejected_replicas_count", "gauge", "Replicas that a Router leaves alone now, after a failure.", ("model", "variant")
)
DIRECTORY_AGE_SECONDS = Metric(
    "manta_directory_age_seconds",
    "gauge",
    "Seconds since a Router has heard from Rollouts which replicas there are and how traffic is split; up to 20 without news.",
    (),
)
RETRIES_REFUSED = Metric(
    "manta_retries_refused_total",
    "counter",
    "Retries that `router.retry_budget` had nothing left for: their clients got the error.",
    ("model",),
)
HEDGES = Metric(
    "manta_hedges_total",
    "counter",
    "Requests that were slow and so sent to a second replica, by whether that one answered first: won, lost.",
    ("model", "variant", "outcome"),
)
SHED = Metric(
    "manta_shed_total",
    "counter",
    "Requests refused because of load, by why: queue_full, expected_wait, displaced (by a higher priority).",
    ("model", "variant", "priority", "reason"),
)
EXPECTED_WAIT_SECONDS = Metric(
    "manta_expected_wait_seconds",
    "gauge",
    "How long a request of priority 5 that comes now is expected to wait in a Router, where that is known; else 0.",
    ("model", "variant"),
)
LIMITS_HIT = Metric(
    "manta_limits_hit_total", "counter", "Refusals by limit: requests, tokens, concurrency (of a key), queue.", ("limit",)
)
PASSAGES = Metric(
    "manta_retrieved_passages_count", "histogram", "Passages that a pipeline found for a question.", ("model",), PASSAGE_BUCKETS
)

ROUTER = (
    REQUESTS,
    REQUEST_SECONDS,
    FIRST_TOKEN_SECONDS,
    GAP_SECONDS,
    QUEUE_WAIT_SECONDS,
    STAGE_SECONDS,
    STAGE_FAILURES,
    STAGES_SKIPPED,
    TOKENS,
    STREAMS_OPEN,
    HELD_REQUESTS,
    RETRIES,
    STREAMS_CONTINUED,
    EJECTIONS,
    EJECTED_REPLICAS,
    DIRECTORY_AGE_SECONDS,
    RETRIES_REFUSED,
    HEDGES,
    SHED,
    EXPECTED_WAIT_SECONDS,
    LIMITS_HIT,
    PASSAGES,
)

# What the Retriever and the Embedders do, by replica.
SEARCH_SECONDS = Metric(
    "manta_search_seconds", "histogram", "Searches in the vector store, of those that ended well.", (), STAGE_BUCKETS
)
SEARCHES = Metric("manta_searches_total", "counter", "Searches, by what they found: hits, nothing, error.", ("outcome",))
EMBED_SECONDS = Metric(
    "manta_embed_seconds", "histogram", "Forward passes of an embedder, of those that ended well.", ("model",), STAGE_BUCKETS
)
EMBEDDED_TEXTS = Metric("manta_embedded_texts_total", "counter", "Texts that an embedder embedded.", ("model",))

RETRIEVER = (SEARCH_SECONDS, SEARCHES)
EMBEDDER = (EMBED_SECONDS, EMBEDDED_TEXTS)

# What the Rollouts deployment knows of the whole platform; one series each, however many Routers there are.
REPLICAS = Metric("manta_replicas_count", "gauge", "Replicas in the directory, by state.", ("model", "variant", "state"))
QUEUE_DEPTH = Metric(
    "manta_queue_depth_count",
    "gauge",
    "Requests that wait for the engine of a variant, those that Routers hold included.",
    ("model", "variant"),
)
RUNNING = Metric("manta_running_requests_count", "gauge", "Requests that engines work on.", ("model", "variant"))
KV_CACHE_USAGE = Metric(
    "manta_kv_cache_usage_ratio", "gauge", "The fullest KV cache of a variant's replicas.", ("model", "variant")
)
REPLICA_PRICE = Metric("manta_replica_price_per_hour", "gauge", "What one replica costs, as configured.", ("model", "variant"))
# Whatever scales is here, not only variants: an embedder's name is its ``model``; of a Retriever and Routers it is empty.
SCALING_WANTED = Metric(
    "manta_scaling_wanted_replicas_count",
    "gauge",
    "Replicas that the policy wants, before the budget of accelerators.",
    ("deployment", "model", "variant"),
)
SCALING_INPUT = Metric(
    "manta_scaling_input_value",
    "gauge",
    "What the policy saw when it decided: target, ready, waiting, held, running, slots, startup_s.",
    ("deployment", "model", "variant", "signal"),
)
SCALING_DECISIONS = Metric(
    "manta_scaling_decisions_total",
    "counter",
    "Decisions of the policy, one a second, by direction: up, down, hold.",
    ("deployment", "model", "variant", "direction"),
)
ROLLOUT_WEIGHT = Metric("manta_rollout_weight_percent", "gauge", "Share of conversations in force.", ("model", "variant"))
ROLLOUT_PHASE = Metric(
    "manta_rollout_phase_info", "gauge", "1 for the phase that a rollout is in, 0 for every other.", ("model", "phase")
)
ROLLOUT_STEP = Metric("manta_rollout_step_index", "gauge", "Step of a rollout, from 0; -1 before the first.", ("model",))
ROLLOUT_DECISIONS = Metric("manta_rollout_decisions_total", "counter", "Decisions on rollouts.", ("model", "action"))
ROLLOUT_EVIDENCE = Metric(
    "manta_rollout_gate_evidence_ratio",
    "gauge",
    "Evidence against the canary by gate, of that which rolls it back (1), on a logarithmic scale.",
    ("model", "gate"),
)
TRAFFIC_TABLE = Metric("manta_traffic_table_version_info", "gauge", "Version of the traffic table.", ())
ROUTERS_BEHIND = Metric("manta_routers_behind_count", "gauge", "Routers that have an older traffic table in force.", ())
VARIANT_REQUESTS = Metric(
    "manta_variant_requests_total",
    "counter",
    "Attempts to have a request answered by a variant.",
    ("model", "variant", "outcome"),
)
SHADOW_REQUESTS = Metric(
    "manta_shadow_requests_total", "counter", "Copies of requests, by what became of them.", ("model", "variant", "outcome")
)

ROLLOUTS = (
    REPLICAS,
    QUEUE_DEPTH,
    RUNNING,
    KV_CACHE_USAGE,
    REPLICA_PRICE,
    SCALING_WANTED,
    SCALING_INPUT,
    SCALING_DECISIONS,
    ROLLOUT_WEIGHT,
    ROLLOUT_PHASE,
    ROLLOUT_STEP,
    ROLLOUT_DECISIONS,
    ROLLOUT_EVIDENCE,
    TRAFFIC_TABLE,
    ROUTERS_BEHIND,
    VARIANT_REQUESTS,
    SHADOW_REQUESTS,
)

# What replicas of variants do.
REPLICA_START = Metric(
    "manta_replica_start_seconds", "gauge", "What the phases of a replica's start took.", ("model", "variant", "phase")
)
REPLICA_DOWNLOAD = Metric(
    "manta_replica_download_bytes", "gauge", "Weights on this node, and weights in all.", ("model", "variant", "of")
)

ADAPTER_LOADS = Metric(
    "manta_adapter_loads_total", "counter", "Loads of LoRA adapters into replicas.", ("model", "variant", "outcome")
)
ADAPTERS_LOADED = Metric("manta_adapters_loaded_count", "gauge", "LoRA adapters in a replica's memory.", ("model", "variant"))

REPLICA = (REPLICA_START, REPLICA_DOWNLOAD, ADAPTER_LOADS, ADAPTERS_LOADED)
