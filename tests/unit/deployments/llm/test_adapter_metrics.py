from __future__ import annotations

from deployments.llm.adapter_metrics import AdapterMetrics, NoAdapterMetrics
from serve_app.metrics import ADAPTER_LOADS, ADAPTERS_LOADED, Metric
from tests.unit.deployments.test_rollout_metrics import FakeMetric


def test_loads_are_counted_by_their_outcome_and_the_loaded_are_shown() -> None:
    made: dict[Metric, FakeMetric] = {}

    def make(metric: Metric) -> FakeMetric:
        return made.setdefault(metric, FakeMetric(metric))

    metrics = AdapterMetrics("chat", "stable", make=make)
    metrics.loaded("ok", 1)
    metrics.loaded("ok", 2)
    metrics.loaded("failed", 2)
    metrics.unloaded(1)
    assert made[ADAPTER_LOADS].values == {("chat", "stable", "ok"): 2, ("chat", "stable", "failed"): 1}
    assert made[ADAPTERS_LOADED].values == {("chat", "stable"): 1}


def test_without_metrics_nothing_happens() -> None:
    NoAdapterMetrics().loaded("ok", 1)
    NoAdapterMetrics().unloaded(0)
