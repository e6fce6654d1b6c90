"""Canaries on real Ray, under 50 chats per second: weights switch in place, and bad canaries are rolled back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import httpx
import pytest

from benchmarks.canary_switch.open_loop import Load
from benchmarks.canary_switch.switch import replica_pids, switch
from tests.integration.canaries import (
    Deployed,
    history_of,
    rollout_of,
    split,
    until_phase,
    weighted,
    with_rollout,
)
from tests.integration.platform import Platform

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

RATE = 50.0
FIVE = [{"weight": 5, "pause": "10m"}]


async def test_a_weight_switches_under_load_without_a_restart_or_a_failure(platform: Platform) -> None:
    before, after = {"stable": 90, "canary": 10}, {"stable": 50, "canary": 50}
    await asyncio.to_thread(platform.deploy, weighted(before))
    await asyncio.to_thread(platform.wait_replicas, 1, variant="canary")
    seen = await switch(Deployed(platform), before=split(before), after=split(after), rate=RATE)
    assert (seen.failed, seen.misrouted, seen.restarted) == (0, 0, ())
    assert seen.chats > 300
    assert seen.told_s < 2.0
    assert seen.last_old_s < 2.0


async def test_a_variant_that_comes_or_goes_restarts_no_other(platform: Platform) -> None:
    alone, both = {"stable": 100}, {"stable": 100, "canary": 0}
    await asyncio.to_thread(platform.deploy, weighted(alone))
    before = replica_pids(platform.cluster.applications())
    load = Load(platform.url, RATE)
    async with load.running():
        await asyncio.to_thread(platform.deploy, weighted(both))
        await asyncio.to_thread(platform.wait_replicas, 1, variant="canary")
        added = replica_pids(platform.cluster.applications())
        await asyncio.to_thread(platform.deploy, weighted(alone))
        await asyncio.to_thread(wait_gone, platform, "llm.chat.canary")
        removed = replica_pids(platform.cluster.applications())
    assert load.failed() == []
    assert {name: pids for name, pids in added.items() if name != "llm.chat.canary"} == before == removed


def wait_gone(platform: Platform, app: str, *, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while app in platform.cluster.applications():
        assert time.monotonic() < deadline_s
        time.sleep(0.5)


BAD: dict[str, dict[str, Any]] = {
    "errors": {"faults": {"error_ratio": 0.3}},
    "slow": {"prefill_s_per_token": 0.03},
    "hangs": {"faults": {"hang_ratio": 1.0}},
    "crash-loop": {"faults": {"crash_after_requests": 5}},
    "never-starts": {"faults": {"fails_to_start": True}},
}
LIMITS_S = {"errors": 20.0}
SLOW = [pytest.mark.slow]


async def rolled_back(platform: Platform, config: dict[str, Any]) -> tuple[Load, float, dict[str, Any]]:
    """Deploy a bad canary under load; return the load, the seconds of its first step, and how the rollout stands."""
    load = Load(platform.url, RATE, timeout_s=60)
    async with load.running():
        await asyncio.to_thread(platform.deploy, config, wait=False)
        found = await until_phase(platform, "rolled_back", timeout_s=180)
        await asyncio.sleep(3)  # for what was taken back to be answered
    decisions = await asyncio.to_thread(history_of, platform)
    began = next(d["at_s"] for d in reversed(decisions) if d["action"] in ("advanced", "started", "restarted"))
    return load, decisions[-1]["at_s"] - began, found


async def steady(platform: Platform) -> None:
    """Put a stable variant in force, and let Routers have seen some of its traffic."""
    await asyncio.to_thread(platform.deploy, with_rollout({}, steps=FIVE))
    await asyncio.to_thread(platform.wait_replicas, 1)
    load = Load(platform.url, RATE)
    async with load.running():
        await asyncio.sleep(8)


@pytest.mark.parametrize(
    "fault",
    [
        "errors",
        "hangs",
        *(pytest.param(fault, marks=SLOW) for fault in ("slow", "crash-loop", "never-starts")),
    ],
)
async def test_a_bad_canary_is_rolled_back_and_no_client_sees_it(platform: Platform, fault: str) -> None:
    await steady(platform)
    config = with_rollout(BAD[fault], steps=FIVE, rollout={"ready_timeout": "30s"})
    load, took_s, found = await rolled_back(platform, config)
    print(f"{fault}: rolled back after {took_s:.1f} s: {found['reason']}")  # noqa: T201
    assert [(a.status, a.error) for a in load.failed()] == []
    assert took_s <= LIMITS_S.get(fault, 60.0)
    assert (found["weights"], found["withdrawn"]) == ({"stable": 100, "canary": 0}, ["canary"])


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["errors", "hangs", "crash-loop"])
async def test_without_fallback_few_clients_see_a_bad_canary(platform: Platform, fault: str) -> None:
    await steady(platform)
    load, took_s, _ = await rolled_back(platform, with_rollout(BAD[fault], steps=FIVE, fallback=False))
    assert took_s <= LIMITS_S.get(fault, 60.0)
    assert len(load.failed()) <= 20


async def test_copies_reach_the_shadow_and_are_compared(platform: Platform) -> None:
    config = weighted({"stable": 100, "canary": 0})
    config["models"][0]["shadow"] = {"variant": "canary", "percent": 50, "compare": "exact"}
    await asyncio.to_thread(platform.deploy, config)
    await asyncio.to_thread(platform.wait_replicas, 1, variant="canary")
    load = Load(platform.url, RATE)
    async with load.running():
        await asyncio.sleep(6)
    await asyncio.sleep(2)  # Routers report once a second
    [seen] = (await asyncio.to_thread(rollout_of, platform))["shadows"]
    assert load.failed() == []
    assert {answer.variant for answer in load.answers} == {"stable"}
    assert (seen["variant"], seen["failed"], seen["agreement_ratio"]) == ("canary", {}, 1.0)
    assert 0.3 * len(load.answers) < seen["compared"] <= seen["copied"] < 0.7 * len(load.answers)


async def test_a_good_canary_goes_all_the_way_and_an_unchanged_configuration_restarts_nothing(platform: Platform) -> None:
    steps: list[dict[str, Any]] = [{"weight": 30, "pause": "2s"}, {"weight": 100}]
    # Generous ratios: a machine of few cores starts the canary's processes while its first requests are measured.
    config = with_rollout({}, steps=steps, gates={"min_requests": 10, "ttft_p95_ratio": 4.0, "ttft_p50_ratio": 4.0})
    load = Load(platform.url, RATE)
    async with load.running():
        await asyncio.to_thread(platform.deploy, config)
        await until_phase(platform, "completed", timeout_s=120)
        decisions = await asyncio.to_thread(history_of, platform)
        await asyncio.to_thread(platform.deploy, config)  # as KubeRay does when its operator restarts
        await asyncio.sleep(3)
    found = rollout_of(platform)
    assert (found["phase"], found["weights"]) == ("completed", {"stable": 0, "canary": 100})
    assert history_of(platform) == decisions
    assert load.failed() == []


async def test_a_rollout_goes_on_after_the_death_of_rollouts_and_a_weight_by_hand_ends_it(platform: Platform) -> None:
    steps: list[dict[str, Any]] = [{"weight": 20, "pause": "10m"}, {"weight": 100}]
    config = with_rollout({}, steps=steps)
    load = Load(platform.url, RATE)
    async with load.running():
        await asyncio.to_thread(platform.deploy, config)
        before = await until_phase(platform, "running", timeout_s=60)
        [pid] = replica_pids(platform.cluster.applications())["rollouts"]
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(wait_restarted, platform, "rollouts", pid)
        after = await until_phase(platform, "running", timeout_s=60)
        await asyncio.sleep(8)  # longer than its directory takes to become complete
        config["models"][0]["variants"][0]["weight"] = 60
        config["models"][0]["variants"][1]["weight"] = 40
        await asyncio.to_thread(platform.deploy, config)
        ended = await until_phase(platform, "overridden", timeout_s=30)
    same = ("phase", "step", "step_since_s", "weights")
    assert [after[key] for key in same] == [before[key] for key in same]
    assert ended["weights"] == {"stable": 60, "canary": 40}
    assert "declared weights are in force" in history_of(platform)[-1]["reason"]
    assert load.failed() == []


def wait_restarted(platform: Platform, app: str, old: int, *, timeout_s: float = 120.0) -> None:
    """Wait until the application has another process than the old one, and the Router can ask it."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        pids = replica_pids(platform.cluster.applications()).get(app, frozenset())
        if pids and old not in pids and httpx.get(f"{platform.url}/admin/rollouts", timeout=30).status_code == 200:
            return
        assert time.monotonic() < deadline_s
        time.sleep(0.5)


def abort(platform: Platform) -> None:
    """Send everything to the baseline by hand, also without a rollout."""
    answer = httpx.post(f"{platform.url}/admin/rollouts/chat/abort", timeout=30)
    assert answer.status_code == 200, answer.text


def wait_told(platform: Platform, *, timeout_s: float = 30.0) -> None:
    """Wait until every Router has said that the table in force is in force there."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        report = httpx.get(f"{platform.url}/admin/rollouts", timeout=30).json()
        if set(report["routers"].values()) == {report["table"]["version"]}:
            return
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def test_a_bad_configuration_is_refused_and_the_table_in_force_stays(platform: Platform) -> None:
    platform.deploy(weighted({"stable": 60, "canary": 40}))
    abort(platform)
    schema = platform.schema(weighted({"stable": 40, "canary": 60}))
    rollouts = next(app for app in schema["applications"] if app["name"] == "rollouts")
    rollouts["deployments"][0]["user_config"]["platform"]["models"][0]["variants"][0]["weight"] = 90  # makes 150
    [pid] = replica_pids(platform.cluster.applications())["rollouts"]
    platform.cluster.deploy(schema)
    deadline_s = time.monotonic() + 60
    while not (report := httpx.get(f"{platform.url}/admin/rollouts", timeout=30).json())["refused"]:
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
    assert "weights must sum to 100, got 150" in report["refused"]
    assert report["splits"][0]["weights"] == {"stable": 100, "canary": 0}
    platform.wait_running({"rollouts", "router"})
    assert replica_pids(platform.cluster.applications())["rollouts"] == {pid}


async def test_a_router_has_the_table_in_force_before_it_is_ready(platform: Platform) -> None:
    await asyncio.to_thread(platform.deploy, weighted({"stable": 10, "canary": 90}))
    await asyncio.to_thread(platform.wait_replicas, 1, variant="canary")
    await asyncio.to_thread(abort, platform)
    await asyncio.to_thread(wait_told, platform)
    [first, *_] = replica_pids(platform.cluster.applications())["router"]
    os.kill(first, signal.SIGKILL)
    load = Load(platform.url, RATE)
    async with load.running():
        await asyncio.to_thread(wait_restarted, platform, "router", first)
        await asyncio.sleep(3)
    assert {a.variant for a in load.answers if not a.is_failed} == {"stable"}
