"""GatewayMetrics: what a gateway counts anyway, read when metrics are collected. It costs a request nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serve_app import metrics
from serve_app.gateway import Gateway
from serve_app.pool import PRIORITY
from serve_app.rollout.histogram import GROWTH, Histogram, bucket_end_s, bucket_index


class GatewayMetrics(Collector):
    """Collects gaps between events, open streams, ejections, and who waits or was refused, of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        gaps = HistogramMetricFamily(metrics.GAP_SECONDS.name, metrics.GAP_SECONDS.help, labels=metrics.GAP_SECONDS.labels)
        for key, counted in self._gateway.attempts.gaps().items():
            gaps.add_metric(key, list(buckets(counted, metrics.GAP_SECONDS.buckets)), sum_value=about_sum_s(counted))
        yield gaps
        # Where nothing is open there is a 0 to show: a series that comes and goes looks like one that is missing.
        none = {(split.name, variant): 0 for split in self._gateway.view.table.splits for variant in split.weights}
        yield _gauge(metrics.STREAMS_OPEN, none | self._gateway.attempts.streams_open())
        yield _gauge(metrics.HELD_REQUESTS, none | self._gateway.pool.held())
        yield _gauge(metrics.EXPECTED_WAIT_SECONDS, none | self._gateway.pool.room.expected_waits_s(PRIORITY))
        yield _counter(metrics.EJECTIONS, self._gateway.pool.ejections.items())
        yield _gauge(metrics.EJECTED_REPLICAS, none | self._gateway.pool.ejected_by_variant())
        age_s = self._gateway.attempts.clock() - self._gateway.updated_s
        yield GaugeMetricFamily(metrics.DIRECTORY_AGE_SECONDS.name, metrics.DIRECTORY_AGE_SECONDS.help, value=age_s)
        refused = self._gateway.budgets.refused
        yield _counter(metrics.RETRIES_REFUSED, (((model,), count) for model, count in refused.items()))
        yield _counter(metrics.HEDGES, self._gateway.hedges.counts.items())
        yield _counter(metrics.SHED, self._gateway.pool.room.shedding.refused.items())


def buckets(counted: Histogram, ends: Iterable[float]) -> Iterator[tuple[str, float]]:
    """Yield (end, how many are not over it), as Prometheus has histograms; ``ends`` lie on the histogram's grid."""
    left, seen = counted.pairs(), 0
    for end in ends:
        last = bucket_index(end / math.sqrt(GROWTH))  # ends are rounded: half a step back is surely in the bucket
        while left and left[0][0] <= last:
            seen += left.pop(0)[1]
        yield str(end), seen
    yield "+Inf", counted.total


def about_sum_s(counted: Histogram) -> float:
    """Return the sum of all durations: exact to half a bucket, 2.5 %, since only buckets are kept."""
    return sum((count * bucket_end_s(index) for index, count in counted.counts.items()), 0.0) / math.sqrt(GROWTH)


def _counter(declared: metrics.Metric, counts: Iterable[tuple[tuple[str, ...], int]]) -> CounterMetricFamily:
    family = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
    for labels, count in counts:
        family.add_metric(labels, count)
    return family


def _gauge(declared: metrics.Metric, values: Mapping[tuple[str, str], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(declared.name, declared.help, labels=declared.labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
