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

EXPORT_S = 5.0  # Ray's own agents collect every ten seconds

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
    """Tells Ray what has changed. Call ``export`` from one thread at a time.

    A histogram goes out as what Prometheus makes of one: sums that only grow, by ``le``. Ray's own histograms would have
    its agent record each observation again, in Python, at the middle of its bucket; here counts and sums stay exact, and
    the cost does not depend on how much was observed. (They are gauges to Ray, since its counters' names end in `_total`.)

    Ray has no way to take a series back. So a gauge whose series is gone is set to 0, and a counter stays as it is; when
    its series comes back, or begins anew, it grows on from there.
    """

    def __init__(self, families: Families, *, make: Callable[[Metric], Any] | None = None) -> None:
        self._families = families
        self._make = make or ray_metric
        self._metrics: dict[str, _Made] = {}
        self._seen: dict[Key, float] = {}

    def export(self) -> None:
        """Tell Ray of every value that has changed since the last call, and of every series that is gone."""
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[None]:
        """Export metric by metric: thousands of series take tens of milliseconds, and a Router has streams to relay."""
        gone = set(self._seen)
        for family in self._families.collect():
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    key = (sample.name, tuple(sample.labels.items()))
                    gone.discard(key)
                    self._tell(key, sample, of=family)
            yield
        for key in gone:
            self._take_back(key)

    def _tell(self, key: Key, sample: Sample, *, of: Family) -> None:
        before = self._seen.get(key)
        if sample.value == before:
            return
        made = self._made(sample, of)
        if not made.is_counter:
            made.metric.set(sample.value, tags=dict(sample.labels))
        elif (grown := _growth(before or 0.0, sample.value)) > 0:
            made.metric.inc(grown, tags=dict(sample.labels))
        self._seen[key] = sample.value  # what Ray did not take is told again

    def _take_back(self, key: Key) -> None:
        del self._seen[key]
        name, labels = key
        if not self._metrics[name].is_counter:
            self._metrics[name].metric.set(0.0, tags=dict(labels))

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
