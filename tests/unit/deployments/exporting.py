"""What stands in for Ray's metrics: it keeps what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from serve_app.metrics import Metric

Labels = tuple[str, ...]


@dataclass
class FakeMetric:
    """Knows what it was set to, and by how much it grew, by the values of its labels; and how often it was told."""

    metric: Metric
    values: dict[Labels, float] = field(default_factory=dict)
    told: int = 0

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert self.metric.kind == "gauge"
        self._keep(value, tags)

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert self.metric.kind == "counter"
        assert value > 0, "Ray raises"
        self._keep(self.values.get(tuple(tags.values()), 0.0) + value, tags)

    def _keep(self, value: float, tags: dict[str, str]) -> None:
        assert tuple(tags) == self.metric.labels
        self.values[tuple(tags.values())] = value
        self.told += 1


def values(registry: CollectorRegistry, name: str) -> dict[Labels, float]:
    """Return what a registry has of a metric, by the values of its labels."""
    samples = (sample for family in registry.collect() for sample in family.samples)
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.name == name}


class Shop:
    """Makes metrics and keeps them."""

    def __init__(self) -> None:
        self.made: dict[str, FakeMetric] = {}

    def __call__(self, metric: Metric) -> FakeMetric:
        assert metric.name not in self.made, "Ray wants each metric made once"
        made = self.made[metric.name] = FakeMetric(metric)
        return made

    def values(self, name: str) -> dict[Labels, float]:
        return self.made[name].values if name in self.made else {}
