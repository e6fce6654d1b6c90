"""Metrics of the rollouts, on Ray's metrics port of the node that runs the Rollouts deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from deployments.ray_metrics import ray_metric
from serve_app.metrics import (
    ROLLOUT_DECISIONS,
    ROLLOUT_EVIDENCE,
    ROLLOUT_PHASE,
    ROLLOUT_STEP,
    ROLLOUT_WEIGHT,
    ROLLOUTS,
    ROUTERS_BEHIND,
    SHADOW_REQUESTS,
    TRAFFIC_TABLE,
    VARIANT_REQUESTS,
    Metric,
)
from serve_app.rollout.controller import Controller
from serve_app.rollout.gathering import Gathering
from serve_app.rollout.plan import Phase


class Sample(NamedTuple):
    """A value now; a counter's is its total."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


class NoMetrics:
    """Shows nothing."""

    def show(self, controller: Controller, gathering: Gathering) -> None:
        """Do nothing."""


class RolloutMetrics:
    """Exports through Ray's own metrics, which KubeRay setups scrape already."""

    def __init__(self, make: Callable[[Metric], Any] | None = None) -> None:
        self._metrics = {metric: (make or ray_metric)(metric) for metric in ROLLOUTS}
        self._totals: dict[tuple[Metric, tuple[str, ...]], float] = {}

    def show(self, controller: Controller, gathering: Gathering) -> None:
        """Export how things stand now."""
        for metric, labels, value in samples(controller, gathering):
            tags = dict(zip(metric.labels, labels, strict=True))
            if metric.kind == "gauge":
                self._metrics[metric].set(value, tags=tags)
            elif (grown := value - self._totals.get((metric, labels), 0.0)) > 0:
                self._metrics[metric].inc(grown, tags=tags)
                self._totals[metric, labels] = value


def samples(controller: Controller, gathering: Gathering) -> Iterator[Sample]:
    """Yield every value of every metric."""
    table = controller.table
    yield Sample(TRAFFIC_TABLE, (), table.version)
    yield Sample(ROUTERS_BEHIND, (), sum(version < table.version for version in gathering.tables().values()))
    for split in table.splits:
        for variant, weight in split.weights.items():
            yield Sample(ROLLOUT_WEIGHT, (split.name, variant), weight)
            for outcome, count in gathering.total((split.name, variant)).outcomes.items():
                yield Sample(VARIANT_REQUESTS, (split.name, variant, outcome.value), count)
        yield from _of_rollout(controller, split.name)
    for (name, variant), shadow in gathering.shadows.items():
        counts: Mapping[str, int] = {"copied": shadow.copied, **shadow.dropped, **shadow.failed}
        for what, count in counts.items():
            yield Sample(SHADOW_REQUESTS, (name, variant, what), count)


def _of_rollout(controller: Controller, name: str) -> Iterator[Sample]:
    for action, count in controller.history.actions(name).items():
        yield Sample(ROLLOUT_DECISIONS, (name, action), count)
    if (progress := controller.progress(name)) is None:
        return
    yield Sample(ROLLOUT_STEP, (name,), progress.step)
    for phase in Phase:
        yield Sample(ROLLOUT_PHASE, (name, phase.value), int(progress.phase is phase))
    if (assessment := controller.assessment(name)) is not None:
        for reading in assessment.readings:
            if reading.evidence_needed:
                yield Sample(ROLLOUT_EVIDENCE, (name, reading.gate), reading.evidence / reading.evidence_needed)
