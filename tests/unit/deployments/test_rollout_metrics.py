from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

from deployments.rollout_metrics import NoMetrics, RolloutMetrics, samples
from serve_app.config import RolloutConfig
from serve_app.metrics import ROLLOUTS, Metric
from serve_app.rollout.commands import Verb
from serve_app.rollout.controller import Controller
from serve_app.rollout.document import RoutingDocument
from serve_app.rollout.gathering import Gathering
from serve_app.rollout.telemetry import Outcome, RouterReport, ShadowStats, VariantStats
from tests.unit.serve_app.fakes import FakeClock, model

Labels = tuple[str, ...]


@dataclass
class FakeMetric:
    """Knows what it was set to, and by how much it grew, by the values of its labels."""

    metric: Metric
    values: dict[Labels, float] = field(default_factory=dict)

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert self.metric.kind == "gauge"
        self.values[self._labels(tags)] = value

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert self.metric.kind == "counter"
        labels = self._labels(tags)
        self.values[labels] = self.values.get(labels, 0.0) + value

    def _labels(self, tags: dict[str, str]) -> Labels:
        assert tuple(tags) == self.metric.labels
        return tuple(tags.values())


class Shop:
    """Makes metrics and keeps them."""

    def __init__(self) -> None:
        self.made: dict[str, FakeMetric] = {}

    def __call__(self, metric: Metric) -> FakeMetric:
        return self.made.setdefault(metric.name, FakeMetric(metric))

    def values(self, name: str) -> dict[Labels, float]:
        return self.made[name].values


class Fleet:
    def ready(self, model: str, variant: str, revision: str) -> int:
        return 1

    def losses(self, model: str, variant: str, revision: str) -> int:
        return 0


class World:
    def __init__(self) -> None:
        chat = model(("stable", 100), ("canary", 0))
        rollout = RolloutConfig.model_validate({"steps": [{"weight": 10}, {"weight": 50}]})
        self.gathering = Gathering()
        self.controller = Controller(self.gathering, wall=FakeClock())
        self.controller.declare(RoutingDocument(models=(chat.model_copy(update={"rollout": rollout}),)))
        self.shop = Shop()
        self.metrics = RolloutMetrics(self.shop)
        self.now_s = 0.0

    def report(self, *, ok: int = 0, table: int = 1) -> None:
        self.now_s += 1.0
        stats = {("chat", "canary"): VariantStats(outcomes=Counter({Outcome.OK: ok}))}
        shadows = {("chat", "canary"): ShadowStats(3, Counter(busy=2), Counter(timeout=1))}
        self.gathering.take(RouterReport("r", int(self.now_s), table, stats, {}, shadows), now_s=self.now_s)
        self.controller.tick(Fleet(), now_s=self.now_s)
        self.metrics.show(self.controller, self.gathering)


def test_gauges_say_how_things_stand() -> None:
    world = World()
    world.report()
    values = world.shop.values
    assert values("manta_rollout_weight_percent") == {("chat", "stable"): 90, ("chat", "canary"): 10}
    assert values("manta_rollout_step_index") == {("chat",): 0}
    assert values("manta_traffic_table_version_info") == {(): world.controller.table.version}
    assert [phase for (_, phase), value in values("manta_rollout_phase_info").items() if value] == ["running"]


def test_a_router_with_an_older_table_is_behind() -> None:
    world = World()
    behind = []
    for table in (1, 2):
        world.report(table=table)
        behind.append(world.shop.values("manta_routers_behind_count")[()])
    assert behind == [1, 0]


def test_counters_grow_by_what_was_counted_since() -> None:
    world = World()
    seen = []
    for ok in (3, 0, 4):
        world.report(ok=ok)
        seen.append(world.shop.values("manta_variant_requests_total").get(("chat", "canary", "ok")))
    assert seen == [3, 3, 7]


def test_decisions_are_counted_by_what_was_done() -> None:
    world = World()
    world.report()
    world.controller.command("chat", Verb.ABORT, by="ann")
    world.report()
    assert world.shop.values("manta_rollout_decisions_total") == {
        ("chat", "started"): 1,
        ("chat", "advanced"): 1,
        ("chat", "aborted"): 1,
    }


def test_copies_are_counted_by_what_became_of_them() -> None:
    world = World()
    world.report()
    assert world.shop.values("manta_shadow_requests_total") == {
        ("chat", "canary", "copied"): 3,
        ("chat", "canary", "busy"): 2,
        ("chat", "canary", "timeout"): 1,
    }


def test_evidence_is_shown_by_gate() -> None:
    world = World()
    world.report()
    stable = {("chat", "stable"): VariantStats(outcomes=Counter({Outcome.OK: 50}))}
    world.gathering.take(RouterReport("s", 1, 1, stable, {}), now_s=world.now_s)
    world.report()
    world.report(ok=5)
    assert ("chat", "error_rate") in world.shop.values("manta_rollout_gate_evidence_ratio")


def test_every_sample_has_the_labels_that_its_metric_declares() -> None:
    world = World()
    world.report(ok=1)
    found = list(samples(world.controller, world.gathering))
    assert [s for s in found if len(s.labels) != len(s.metric.labels) or s.metric not in ROLLOUTS] == []


@pytest.mark.parametrize("metric", ROLLOUTS, ids=lambda metric: metric.name)
def test_every_metric_is_made_once(metric: Metric) -> None:
    shop = Shop()
    RolloutMetrics(shop)
    assert shop.made[metric.name].metric is metric


def test_without_metrics_nothing_is_shown() -> None:
    world = World()
    NoMetrics().show(world.controller, world.gathering)
