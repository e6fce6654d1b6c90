from __future__ import annotations

from dataclasses import dataclass, field

from deployments.llm.start_metrics import StartMetrics
from serve_app.metrics import Metric
from serve_app.storage.progress import Progress


@dataclass
class FakeGauge:
    """Keeps what is set, by its labels."""

    metric: Metric
    values: dict[tuple[str, ...], float] = field(default_factory=dict)

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.metric.labels)
        self.values[tuple(tags[name] for name in self.metric.labels)] = value


def test_the_phases_of_a_start_and_its_download_are_shown() -> None:
    made: list[FakeGauge] = []

    def make(metric: Metric) -> FakeGauge:
        made.append(FakeGauge(metric))
        return made[-1]

    metrics = StartMetrics("chat", "stable", make=make)
    metrics.ended("download", 12.5)
    metrics.ended("load", 80.0)
    metrics.downloaded(Progress(done_bytes=100, total_bytes=400))
    start, download = made
    assert start.values == {("chat", "stable", "download"): 12.5, ("chat", "stable", "load"): 80.0}
    assert download.values == {("chat", "stable", "done"): 100, ("chat", "stable", "total"): 400}
