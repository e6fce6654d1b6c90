from __future__ import annotations

from collections import Counter

from autoscaling.document import ScaledApp, ScalingDocument
from deployments.rollout_metrics import NoMetrics, RolloutMetrics, Sources, rollout_samples
from deployments.scaling_feed import ScalingFeed
from serve_app.config import AutoscalingConfig, RolloutConfig
from serve_app.metrics import ROLLOUTS
from serve_app.rollout.commands import Verb
from serve_app.rollout.controller import Controller
from serve_app.rollout.directory import Directory
from serve_app.rollout.document import RoutingDocument
from serve_app.rollout.gathering import Gathering
from serve_app.rollout.telemetry import Outcome, RouterReport, ShadowStats, VariantStats
from tests.unit.deployments.exporting import Shop
from tests.unit.deployments.fakes import MemoryState
from tests.unit.serve_app.fakes import FakeClock, entry, model


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
        self.models = (chat.model_copy(update={"rollout": rollout}),)
        self.controller.declare(RoutingDocument(models=self.models))
        scaling = ScalingFeed(MemoryState(), wall=FakeClock())
        self.sources = Sources(self.controller, self.gathering, Directory(ttl_s=1e9), scaling)
        self.shop = Shop()
        self.metrics = RolloutMetrics(self.shop)
        self.now_s = 0.0

    def report(self, *, ok: int = 0, table: int = 1) -> None:
        self.now_s += 1.0
        stats = {("chat", "canary"): VariantStats(outcomes=Counter({Outcome.OK: ok}))}
        shadows = {("chat", "canary"): ShadowStats(3, Counter(busy=2), Counter(timeout=1))}
        self.gathering.take(RouterReport("r", int(self.now_s), table, stats, {}, shadows), now_s=self.now_s)
        self.controller.tick(Fleet(), now_s=self.now_s)
        self.metrics.show(self.sources, now_s=self.now_s)


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


def test_what_is_gone_is_told_no_more() -> None:
    world = World()
    world.report(ok=3)
    told = {name: world.shop.made[name].told for name in ("manta_rollout_weight_percent", "manta_rollout_phase_info")}
    world.controller.declare(RoutingDocument())
    world.report()
    assert {name: world.shop.made[name].told for name in told} == told
    assert world.shop.values("manta_variant_requests_total") == {("chat", "canary", "ok"): 3}


def test_counters_of_a_variant_that_comes_back_go_on() -> None:
    world = World()
    world.report(ok=3)
    world.controller.declare(RoutingDocument())
    world.report()
    world.controller.declare(RoutingDocument(models=world.models))
    world.report(ok=2)
    assert world.shop.values("manta_variant_requests_total") == {("chat", "canary", "ok"): 5}


def test_every_sample_has_the_labels_that_its_metric_declares() -> None:
    world = World()
    world.report(ok=1)
    found = list(rollout_samples(world.controller, world.gathering))
    assert [s for s in found if len(s.labels) != len(s.metric.labels) or s.metric not in ROLLOUTS] == []


def test_replicas_and_scaling_are_shown_beside_the_rollouts() -> None:
    world = World()
    world.sources.directory.heartbeat(entry("r1", model="chat", variant="stable"), seq=1, now_s=0.0)
    world.sources.scaling.document = ScalingDocument(
        apps={"llm.chat.stable": ScaledApp(deployment="LLM", settings=AutoscalingConfig(), price_per_hour=1.5)}
    )
    world.report()
    values = world.shop.values
    assert values("manta_replicas_count")["chat", "stable", "ready"] == 1
    assert values("manta_replica_price_per_hour") == {("chat", "stable"): 1.5}


def test_without_metrics_nothing_is_shown() -> None:
    world = World()
    NoMetrics().show(world.sources, now_s=0.0)
    assert world.shop.made == {}
