"""Metrics of the Rollouts deployment, on Ray's metrics port of its node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from deployments.platform_metrics import Sample, replica_samples, scaling_samples
from deployments.ray_export import RayExport
from deployments.scaling_feed import ScalingFeed
from serve_app.metrics import (
    ROLLOUT_DECISIONS,
    ROLLOUT_EVIDENCE,
    ROLLOUT_PHASE,
    ROLLOUT_STEP,
    ROLLOUT_WEIGHT,
    ROUTERS_BEHIND,
    SHADOW_REQUESTS,
    TRAFFIC_TABLE,
    VARIANT_REQUESTS,
    Metric,
)
from serve_app.rollout.controller import Controller
from serve_app.rollout.directory import Directory
from serve_app.rollout.gathering import Gathering
from serve_app.rollout.plan import Phase


@dataclass(frozen=True, slots=True)
class Sources:
    """What Rollouts knows, as its metrics read it."""

    controller: Controller
    gathering: Gathering
    directory: Directory
    scaling: ScalingFeed


class NoMetrics:
    """Shows nothing."""

    def show(self, sources: Sources, *, now_s: float) -> None:
        """Do nothing."""


class RolloutMetrics:
    """Exports through Ray's own metrics, which KubeRay setups scrape already.

    What is gone (a variant, a rollout) is shown as 0, as ``RayExport`` says.
    """

    def __init__(self, make: Callable[[Metric], Any] | None = None) -> None:
        self._samples: list[Sample] = []
        self._export = RayExport(self, make=make)

    def show(self, sources: Sources, *, now_s: float) -> None:
        """Export how things stand now; the time is of the clock that the directory and the gathering go by."""
        directory, gathering, scaling = sources.directory, sources.gathering, sources.scaling
        self._samples = [
            *rollout_samples(sources.controller, gathering),
            *replica_samples(directory, gathering, scaling.document.apps, now_s=now_s),
            *scaling_samples(scaling),
        ]
        self._export.export()

    def collect(self) -> Iterable[Family]:
        """Return what was last to be shown."""
        families: dict[Metric, GaugeMetricFamily | CounterMetricFamily] = {}
        for metric, labels, value in self._samples:
            if metric not in families:
                kind = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
                families[metric] = kind(metric.name, metric.help, labels=metric.labels)
            families[metric].add_metric(labels, value)
        return families.values()


def rollout_samples(controller: Controller, gathering: Gathering) -> Iterator[Sample]:
    """Yield how every rollout stands, and what was counted for it."""
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
