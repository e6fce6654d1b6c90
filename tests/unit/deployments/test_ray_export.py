from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator

import pytest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric as Family

from deployments import ray_export
from deployments.ray_export import RayExport, keep_exporting
from serve_app.metrics import Metric
from serve_app.registry import Registry
from tests.unit.deployments.exporting import Shop
from tests.unit.serve_app.fakes import turns

OPEN = Metric("manta_open_count", "gauge", "Open.", ("model",))
DONE = Metric("manta_done_total", "counter", "Done.", ("model",))
TOOK = Metric("manta_took_seconds", "histogram", "Took.", ("model",), (0.1, 1.0))


class Counted:
    """One counter of a source that may forget it, or begin anew."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}

    def collect(self) -> Iterator[Family]:
        family = CounterMetricFamily("manta_done_total", "Done.", labels=["model"])
        for model, total in self.totals.items():
            family.add_metric([model], total)
        yield family


def test_a_counter_goes_out_as_what_it_grew_by() -> None:
    registry, shop = Registry(), Shop()
    export = RayExport(registry, make=shop)
    done = registry.counter(DONE)
    seen = []
    for more in (3, 0, 4):
        done.labels("chat").inc(more)
        export.export()
        seen.append(shop.values("manta_done_total")["chat",])
    assert (seen, shop.made["manta_done_total"].told) == ([3, 3, 7], 2)


def test_a_gauge_is_told_again_though_it_has_not_changed_since_ray_would_drop_it() -> None:
    registry, shop = Registry(), Shop()
    export = RayExport(registry, make=shop)
    registry.gauge(OPEN).labels("chat").set(2)
    export.export()
    export.export()
    assert (shop.values("manta_open_count"), shop.made["manta_open_count"].told) == ({("chat",): 2}, 2)


def test_a_histogram_goes_out_as_sums_by_bucket_with_exact_counts() -> None:
    registry, shop = Registry(), Shop()
    export = RayExport(registry, make=shop)
    took = registry.histogram(TOOK)
    for value in (0.05, 0.5, 7.0):
        took.labels("chat").observe(value)
        export.export()
    assert shop.values("manta_took_seconds_bucket") == {("chat", "0.1"): 1, ("chat", "1.0"): 2, ("chat", "+Inf"): 3}
    assert shop.values("manta_took_seconds_count") == {("chat",): 3}
    assert shop.values("manta_took_seconds_sum") == {("chat",): 7.55}
    assert set(shop.made) == {f"manta_took_seconds_{part}" for part in ("bucket", "count", "sum")}
    assert {each.metric.help for each in shop.made.values()} == {"Took."}


def test_a_gauge_whose_series_is_gone_is_told_no_more() -> None:
    registry, shop = Registry(), Shop()
    export = RayExport(registry, make=shop)
    gauge = registry.gauge(OPEN)
    for model in ("chat", "gone"):
        gauge.labels(model).set(2)
    export.export()
    gauge.remove("gone")
    export.export()
    assert shop.made["manta_open_count"].told == 3


@pytest.mark.parametrize(
    ("totals", "told"),
    [([5, None, 3], 8), ([5, None, 5], 10), ([5, 3], 8), ([5, 0, 2], 7), ([0, 2], 2)],
    ids=["gone-and-back", "back-as-it-was", "anew", "anew-from-zero", "not-yet"],
)
def test_a_counter_never_falls(totals: list[float | None], told: float) -> None:
    source, shop = Counted(), Shop()
    export = RayExport(source, make=shop)
    for total in totals:
        source.totals = {} if total is None else {"chat": total}
        export.export()
    assert shop.values("manta_done_total") == {("chat",): told}


def test_what_ray_did_not_take_is_told_again_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    source, shop = Counted(), Shop()
    export = RayExport(source, make=shop)
    source.totals = {"a": 1, "b": 1}
    export.export()
    source.totals = {"a": 2, "b": 2}
    metric = shop.made["manta_done_total"]
    inc = metric.inc

    def fail_for_b(value: float, tags: dict[str, str]) -> None:
        if tags["model"] == "b":
            raise ValueError("Ray is away")
        inc(value, tags)

    with monkeypatch.context() as patch:
        patch.setattr(metric, "inc", fail_for_b)
        with pytest.raises(ValueError, match="away"):
            export.export()
    export.export()
    assert metric.values == {("a",): 2, ("b",): 2}


def test_a_value_that_is_no_number_goes_out_as_it_is() -> None:
    registry, shop = Registry(), Shop()
    registry.gauge(OPEN).labels("chat").set(math.nan)
    RayExport(registry, make=shop).export()
    assert math.isnan(shop.values("manta_open_count")["chat",])


async def test_exporting_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ray_export, "EXPORT_S", 0.0)
    registry, shop = Registry(), Shop()
    registry.gauge(OPEN).labels("chat").set(1)
    failures = iter([RuntimeError("Ray is away")])

    def make(metric: Metric) -> object:
        for failure in failures:
            raise failure
        return shop(metric)

    exporting = asyncio.create_task(keep_exporting(RayExport(registry, make=make)))
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        await turns()
    exporting.cancel()
    assert "metrics could not be exported" in caplog.text
    assert shop.values("manta_open_count") == {("chat",): 1}


async def test_others_get_their_turn_between_two_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_export, "EXPORT_S", 0.0)
    registry, shop = Registry(), Shop()
    for name in ("a", "b"):
        registry.gauge(Metric(f"manta_{name}_count", "gauge", "One.")).set(1)
    exporting = asyncio.create_task(keep_exporting(RayExport(registry, make=shop)))
    seen = []
    for _ in range(6):
        await asyncio.sleep(0)
        seen.append(len(shop.made))
    exporting.cancel()
    assert sorted(set(seen)) == [0, 1, 2]
