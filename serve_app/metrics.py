"""Every metric: its name, kind, meaning and labels. Labels are from closed sets, never ids of requests, users or tenants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, as it is declared to whatever exports it."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


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
