from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from autoscaling.desk import Desk, Look
from autoscaling.document import DECISIONS, SCALING, ScaledApp, ScalingDocument
from deployments.names import LIMITS_APP, ROUTER_APP, embedder_app, labels_of, llm_app
from deployments.platform_metrics import DIRECTIONS, SIGNALS, Sample, replica_samples, scaling_samples
from deployments.scaling_feed import ScalingFeed
from serve_app.config_scaling import AutoscalingConfig
from serve_app.contracts import EngineLoad, ReplicaState
from serve_app.metrics import KV_CACHE_USAGE, QUEUE_DEPTH, REPLICA_PRICE, REPLICAS, ROLLOUTS, RUNNING, Metric
from serve_app.rollout.directory import Directory
from serve_app.rollout.gathering import AWAY_S, Gathering
from serve_app.rollout.telemetry import RouterReport
from tests.unit.deployments.fakes import MemoryState
from tests.unit.serve_app.fakes import FakeClock, entry

DECISION = {
    "target": 2, "wanted": 3, "granted": None, "reason": "load", "ready": 1, "waiting": 4.0, "held": 0.5, "running": 8.25,
    "slots": 16.0, "startup_s": 60.0, "decided": {"up": 1, "hold": 7}, "at": 99.0,
}  # fmt: skip


class Kept:
    """A store in memory, as policies see it."""

    def __init__(self, values: dict[str, bytes]) -> None:
        self.values = values

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def put(self, key: str, data: bytes) -> None:
        self.values[key] = data


def app(deployment: str = "LLM", *, is_fixed: bool = False, price_per_hour: float | None = None) -> ScaledApp:
    return ScaledApp(deployment=deployment, settings=AutoscalingConfig(), is_fixed=is_fixed, price_per_hour=price_per_hour)


def values(samples: list[Sample], metric: Metric) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for sample in samples if sample.metric is metric}


def directory(**replicas: tuple[ReplicaState, EngineLoad]) -> Directory:
    """Return one of replicas of chat/stable."""
    made = Directory(ttl_s=1e9)
    for replica_id, (state, load) in replicas.items():
        made.heartbeat(replace(entry(replica_id, state=state), load=load), seq=1, now_s=0.0)
    return made


def holding(count: int) -> Gathering:
    made = Gathering()
    made.take(RouterReport("a", 1, 1, {}, {}, held={("chat", "stable"): count}), now_s=0.0)
    return made


def test_a_variants_load_is_that_of_its_replicas_and_of_what_routers_hold() -> None:
    loads = [
        EngineLoad(waiting=3, running=8, kv_cache_usage_ratio=0.25),
        EngineLoad(waiting=1, running=2, kv_cache_usage_ratio=0.5),
    ]
    replicas = directory(a=(ReplicaState.READY, loads[0]), b=(ReplicaState.DRAINING, loads[1]))
    found = list(replica_samples(replicas, holding(2), {}, now_s=0.0))
    key = ("chat", "stable")
    assert values(found, REPLICAS) == {(*key, "starting"): 0, (*key, "ready"): 1, (*key, "draining"): 1}
    assert [values(found, metric)[key] for metric in (QUEUE_DEPTH, RUNNING, KV_CACHE_USAGE)] == [6, 10, 0.5]


def test_a_declared_variant_without_a_replica_is_shown_with_what_waits_for_it() -> None:
    found = list(replica_samples(Directory(ttl_s=1e9), holding(2), {"llm.chat.stable": app()}, now_s=0.0))
    assert set(values(found, REPLICAS).values()) == {0}
    assert values(found, QUEUE_DEPTH) == {("chat", "stable"): 2}


def test_other_applications_have_no_place_in_the_directory() -> None:
    apps = {"embedder.minilm": app("Embedder"), "router": app("Router"), "retriever": app("Retriever")}
    assert list(replica_samples(Directory(ttl_s=1e9), Gathering(), apps, now_s=0.0)) == []


def test_what_a_router_held_that_fell_silent_waits_no_more() -> None:
    found = list(replica_samples(Directory(ttl_s=1e9), holding(2), {"llm.chat.stable": app()}, now_s=AWAY_S + 1))
    assert values(found, QUEUE_DEPTH) == {("chat", "stable"): 0}


async def scaling(apps: dict[str, ScaledApp], decisions: dict[str, Any]) -> ScalingFeed:
    """Return a feed that has seen these decisions."""
    store = MemoryState()
    store.values[DECISIONS] = json.dumps(decisions).encode()
    made = ScalingFeed(store, wall=FakeClock())
    await made.declare(ScalingDocument(apps=apps))
    await made.tick(Directory(ttl_s=1e9), Gathering(), 0.0)
    return made


def by_name(samples: list[Sample]) -> dict[str, float]:
    return {f"{each.metric.name}{list(each.labels)}": each.value for each in samples}


async def test_a_decision_is_shown_with_what_it_went_by() -> None:
    feed = await scaling({"llm.chat.stable": app()}, {"llm.chat.stable": DECISION})
    labels = "'LLM', 'chat', 'stable'"
    assert by_name(list(scaling_samples(feed))) == {
        f"manta_scaling_wanted_replicas_count[{labels}]": 3,
        **{f"manta_scaling_input_value[{labels}, '{signal}']": DECISION[signal] for signal in SIGNALS},
        f"manta_scaling_decisions_total[{labels}, 'up']": 1,
        f"manta_scaling_decisions_total[{labels}, 'hold']": 7,
    }


async def test_every_stage_that_scales_is_shown() -> None:
    apps = {"embedder.minilm": app("Embedder"), "router": app("Router")}
    found = list(scaling_samples(await scaling(apps, {name: {"target": 1, "wanted": 2} for name in apps})))
    assert {each.labels[:3] for each in found} == {("Embedder", "minilm", ""), ("Router", "", "")}


@pytest.mark.parametrize(
    ("is_fixed", "decisions"),
    [
        (True, {"llm.chat.stable": DECISION}),
        (False, {}),
        (False, {"llm.gone.stable": DECISION}),
        (False, {"llm.chat.stable": {"target": None, "wanted": "3", "decided": [1]}}),
    ],
    ids=["fixed", "none", "of-another", "of-another-form"],
)
async def test_where_nothing_is_decided_nothing_is_shown(is_fixed: bool, decisions: dict[str, Any]) -> None:
    feed = await scaling({"llm.chat.stable": app(is_fixed=is_fixed)}, decisions)
    assert list(scaling_samples(feed)) == []


async def test_decisions_stand_while_the_store_is_away() -> None:
    store = MemoryState()
    store.values[DECISIONS] = json.dumps({"llm.chat.stable": DECISION}).encode()
    feed = ScalingFeed(store, wall=FakeClock())
    for store.is_away in (False, True):
        await feed.tick(Directory(ttl_s=1e9), Gathering(), 0.0)
    assert feed.decisions == {"llm.chat.stable": DECISION}


async def test_prices_are_those_of_the_document() -> None:
    apps = {
        "llm.chat.stable": app(is_fixed=True, price_per_hour=1.5),
        "llm.chat.free": app(price_per_hour=0.0),
        "llm.chat.x": app(),
    }
    found = list(scaling_samples(await scaling(apps, {})))
    assert values(found, REPLICA_PRICE) == {("chat", "stable"): 1.5, ("chat", "free"): 0.0}


async def test_every_sample_has_the_labels_that_its_metric_declares() -> None:
    feed = await scaling({"llm.chat.stable": app(price_per_hour=1.0)}, {"llm.chat.stable": DECISION})
    replicas = directory(a=(ReplicaState.READY, EngineLoad()))
    found = [*replica_samples(replicas, Gathering(), {}, now_s=0.0), *scaling_samples(feed)]
    assert [s for s in found if len(s.labels) != len(s.metric.labels) or s.metric not in ROLLOUTS] == []
    assert len({sample.metric for sample in found}) == 8


def test_what_policies_publish_is_all_shown() -> None:
    store = Kept({SCALING: ScalingDocument(apps={"llm.chat.stable": app()}).model_dump_json().encode()})
    policies = Desk(store, clock=FakeClock(), wall=FakeClock())
    policies.feed.look()
    policies.decide(Look("llm.chat.stable", 1, ["r1"], raw=lambda: None, queued=lambda: 0.0))
    policies.feed.look()
    [published] = json.loads(store.values[DECISIONS]).values()
    assert set(published) == {*SIGNALS, "wanted", "granted", "reason", "decided", "at"}
    assert set(published["decided"]) <= set(DIRECTIONS)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (llm_app("chat", "stable"), ("chat", "stable")),
        (embedder_app("minilm"), ("minilm", "")),
        (ROUTER_APP, ("", "")),
        (LIMITS_APP, ("", "")),
    ],
)
def test_an_application_says_what_it_is_of(name: str, labels: tuple[str, str]) -> None:
    assert labels_of(name) == labels
