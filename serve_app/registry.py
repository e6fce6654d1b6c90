"""Registry: the metrics of one process, kept by prometheus_client. What exports them reads it; nobody else does."""

from __future__ import annotations

from typing import cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

from serve_app.metrics import Metric

KINDS: dict[str, type[MetricWrapperBase]] = {"counter": Counter, "gauge": Gauge}


class Registry(CollectorRegistry):
    """Makes the metrics that ``serve_app.metrics`` declares, each once."""

    def __init__(self) -> None:
        # A series more for each, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        super().__init__()

    def counter(self, metric: Metric) -> Counter:
        """Return a counter by its declaration."""
        return cast(Counter, self._made(metric, "counter"))

    def gauge(self, metric: Metric) -> Gauge:
        """Return a gauge by its declaration."""
        return cast(Gauge, self._made(metric, "gauge"))

    def histogram(self, metric: Metric) -> Histogram:
        """Return a histogram by its declaration."""
        return cast(Histogram, self._made(metric, "histogram"))

    def _made(self, metric: Metric, kind: str) -> MetricWrapperBase:
        if metric.kind != kind:
            raise TypeError(f"{metric.name} is declared as a {metric.kind}")
        if kind == "histogram":
            return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self)
        return KINDS[kind](metric.name, metric.help, metric.labels, registry=self)
