from __future__ import annotations

from deployments.llm.adapter_metrics import AdapterMetrics, NoAdapterMetrics
from serve_app.registry import Registry
from tests.unit.deployments.exporting import values


def test_loads_are_counted_by_their_outcome_and_the_loaded_are_shown() -> None:
    registry = Registry()
    metrics = AdapterMetrics("chat", "stable", registry=registry)
    metrics.loaded("ok", 1)
    metrics.loaded("ok", 2)
    metrics.loaded("failed", 2)
    metrics.unloaded(1)
    loads = {("chat", "stable", "ok"): 2, ("chat", "stable", "failed"): 1}
    assert values(registry, "manta_adapter_loads_total") == loads
    assert values(registry, "manta_adapters_loaded_count") == {("chat", "stable"): 1}


def test_without_metrics_nothing_happens() -> None:
    NoAdapterMetrics().loaded("ok", 1)
    NoAdapterMetrics().unloaded(0)
