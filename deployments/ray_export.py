"""RayExport: shows a process's registry on Ray's metrics port, which every KubeRay setup scrapes already."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, Protocol

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from deployments.ray_metrics import ray_metric
from serve_app.metrics import Metric

logger = logging.getLogger("ray.serve")

EXPORT_S = 5.0  # Ray's agents collect every ten seconds, and drop a gauge that nobody has set for twice as long

Key = tuple[str, tuple[tuple[str, str], ...]]


class Families(Protocol):
    """What has metrics to show: a registry of prometheus_client's, for one."""

    def collect(self) -> Iterable[Family]:
        """Return them as they stand now."""
        ...


class _Made(NamedTuple):
    metric: Any  # of Ray's
    is_counter: bool


class RayExport:
    """Tells Ray how every series stands. Call ``export`` from one thread at a time, at least every ``EXPORT_S``.

    A histogram goes out as what Prometheus makes of one: sums that only grow, by ``le``. Ray's own histograms would have
    its agent record each observation again, in Python, at the middle of its bucket; here counts and sums stay exact, and
    the cost does not depend on how much was observed. (They are gauges to Ray, since its counters' names end in `_total`.)

    Gauges are told again and again, because Ray drops those that are not: so one whose series is gone vanishes within half
    a minute. A counter stays as it is; when its series comes back, or begins anew, it grows on from there.
    """

    def __init__(self, families: Families, *, make: Callable[[Metric], Any] | None = None) -> None:
        self._families = families
        self._make = make or ray_metric
        self._metrics: dict[str, _Made] = {}
        self._seen: dict[Key, float] = {}  # counters

    def export(self) -> None:
        """Tell Ray of every gauge, and by how much every counter has grown since the last call."""
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[None]:
        """Export metric by metric: thousands of series take tens of milliseconds, and a Router has streams to relay."""
        gone = set(self._seen)
        for family in self._families.collect():
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    made = self._made(sample, family)
                    if made.is_counter:
                        gone.discard(self._grow(made.metric, sample))
                    else:
                        made.metric.set(sample.value, tags=dict(sample.labels))
            yield
        for key in gone:
            del self._seen[key]

    def _grow(self, metric: Any, sample: Sample) -> Key:
        key = (sample.name, tuple(sample.labels.items()))
        if (grown := _growth(self._seen.get(key, 0.0), sample.value)) > 0:
            metric.inc(grown, tags=dict(sample.labels))
        self._seen[key] = sample.value  # what Ray did not take is told again
        return key

    def _made(self, sample: Sample, family: Family) -> _Made:
        made = self._metrics.get(sample.name)
        if made is None:
            is_counter = family.type == "counter"
            kind: Literal["counter", "gauge"] = "counter" if is_counter else "gauge"
            declared = Metric(sample.name, kind, family.documentation, tuple(sample.labels))
            made = self._metrics[sample.name] = _Made(self._make(declared), is_counter)
        return made


def _growth(before: float, now: float) -> float:
    """Return by how much a counter grew; one that fell has begun anew."""
    return now - before if now >= before else now


async def keep_exporting(export: RayExport) -> None:
    """Export for ever, metric by metric."""
    while True:
        await asyncio.sleep(EXPORT_S)
        try:
            for _ in export.steps():
                await asyncio.sleep(0)
        except Exception:
            logger.exception("metrics could not be exported")
