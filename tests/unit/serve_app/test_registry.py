from __future__ import annotations

import pytest

from serve_app.metrics import Metric
from serve_app.registry import Registry

COUNTER = Metric("manta_done_total", "counter", "Done.", ("model",))
GAUGE = Metric("manta_open_count", "gauge", "Open.")
HISTOGRAM = Metric("manta_took_seconds", "histogram", "Took.", ("model",), (0.1, 1.0))


def test_metrics_are_made_as_they_are_declared() -> None:
    registry = Registry()
    registry.counter(COUNTER).labels(model="chat").inc(2)
    registry.gauge(GAUGE).set(3)
    registry.histogram(HISTOGRAM).labels(model="chat").observe(0.5)
    assert registry.get_sample_value("manta_done_total", {"model": "chat"}) == 2
    assert registry.get_sample_value("manta_open_count") == 3
    ends = {
        le: registry.get_sample_value("manta_took_seconds_bucket", {"model": "chat", "le": le}) for le in ("0.1", "1.0", "+Inf")
    }
    assert ends == {"0.1": 0, "1.0": 1, "+Inf": 1}
    assert {family.name: family.documentation for family in registry.collect()} == {
        "manta_done": "Done.",
        "manta_open_count": "Open.",
        "manta_took_seconds": "Took.",
    }


def test_a_metric_is_made_once() -> None:
    registry = Registry()
    registry.counter(COUNTER)
    with pytest.raises(ValueError, match="Duplicated"):
        registry.counter(COUNTER)


@pytest.mark.parametrize("metric", [GAUGE, HISTOGRAM], ids=lambda metric: metric.kind)
def test_a_metric_is_what_it_was_declared_as(metric: Metric) -> None:
    with pytest.raises(TypeError, match=f"{metric.name} is declared as a {metric.kind}"):
        Registry().counter(metric)


def test_registries_know_nothing_of_each_other() -> None:
    one, other = Registry(), Registry()
    one.gauge(GAUGE).set(1)
    other.gauge(GAUGE).set(2)
    assert [each.get_sample_value("manta_open_count") for each in (one, other)] == [1, 2]
