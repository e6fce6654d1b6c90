"""What Rollouts knows of the whole platform, as metrics: replicas and their load, and what scaling decides by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

from autoscaling.document import ScaledApp
from deployments.names import labels_of
from deployments.scaling_feed import ScalingFeed
from serve_app.contracts import ReplicaEntry, ReplicaState
from serve_app.metrics import (
    KV_CACHE_USAGE,
    QUEUE_DEPTH,
    REPLICA_PRICE,
    REPLICAS,
    RUNNING,
    SCALING_DECISIONS,
    SCALING_INPUT,
    SCALING_WANTED,
    Metric,
)
from serve_app.rollout.directory import Directory
from serve_app.rollout.gathering import Gathering
from serve_app.rollout.telemetry import VariantKey

# Of what policies publish (autoscaling/desk.py), what they decided by.
SIGNALS = ("target", "ready", "waiting", "held", "running", "slots", "startup_s")
DIRECTIONS = ("up", "down", "hold")


class Sample(NamedTuple):
    """A value now; a counter's is its total."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


def replica_samples(
    directory: Directory, gathering: Gathering, apps: Mapping[str, ScaledApp], *, now_s: float
) -> Iterator[Sample]:
    """Yield what is known of the replicas of every variant that is declared or has some still."""
    entries: dict[VariantKey, list[ReplicaEntry]] = {
        labels_of(name): [] for name, app in apps.items() if app.deployment == "LLM"
    }
    for entry in directory.entries():
        entries.setdefault((entry.model, entry.variant), []).append(entry)
    held = gathering.held(now_s=now_s)
    for key, own in entries.items():
        for state in ReplicaState:
            yield Sample(REPLICAS, (*key, state.value), sum(entry.state is state for entry in own))
        yield Sample(QUEUE_DEPTH, key, held[key] + sum(entry.load.waiting for entry in own))
        yield Sample(RUNNING, key, sum(entry.load.running for entry in own))
        yield Sample(KV_CACHE_USAGE, key, max((entry.load.kv_cache_usage_ratio for entry in own), default=0.0))


def scaling_samples(scaling: ScalingFeed) -> Iterator[Sample]:
    """Yield what replicas cost, and the decisions on every application whose number of replicas is not fixed."""
    for name, app in scaling.document.apps.items():
        if app.price_per_hour is not None:
            yield Sample(REPLICA_PRICE, labels_of(name), app.price_per_hour)
        if not app.is_fixed and (decision := scaling.decisions.get(name)) is not None:
            yield from _of_decision((app.deployment, *labels_of(name)), decision)


def _of_decision(labels: tuple[str, ...], decision: Mapping[str, Any]) -> Iterator[Sample]:
    # Another version of the policy, in Serve's controller, may publish less or in another form.
    if _is_number(wanted := decision.get("wanted")):
        yield Sample(SCALING_WANTED, labels, wanted)
    for signal in SIGNALS:
        if _is_number(value := decision.get(signal)):
            yield Sample(SCALING_INPUT, (*labels, signal), value)
    if isinstance(counts := decision.get("decided"), dict):
        for direction in DIRECTIONS:
            if _is_number(count := counts.get(direction)):
                yield Sample(SCALING_DECISIONS, (*labels, direction), count)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float)
