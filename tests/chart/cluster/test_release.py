"""A release's whole life under load, through the real Helm engine and on a real Ray Serve."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from helm_python import Chart, HelmError

from benchmarks.canary_switch.open_loop import Load
from benchmarks.canary_switch.switch import Switch, switch
from scripts.chart_upgrades import CHART
from tests.chart.cluster.installation import SETTLE_S, Installation, values
from tests.chart.cluster.kinds import KINDS
from tests.chart.cluster.operator import until
from tests.chart.cluster.targets import RELEASE, Local
from tests.integration.canaries import split

pytestmark = [pytest.mark.chart, pytest.mark.ray, pytest.mark.timeout(600)]

Say = Callable[[str], None]

RATE = 15.0  # chats per second
FIRST, MORE = {"stable": 90, "canary": 10}, {"stable": 50, "canary": 50}


@dataclass
class Rolled:
    """The release as something to switch by `helm rollback`."""

    installation: Installation
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.installation.url

    @property
    def applications(self) -> Mapping[str, Any]:
        return self.installation.applications

    def put(self, weights: Mapping[str, int]) -> None:
        self.installation.rollback()


def local_of(installation: Installation) -> Local:
    if installation.target.local is None:
        pytest.skip("needs the loopback cluster")
    return installation.target.local


def line(what: str, seen: Switch) -> str:
    return (
        f"{what}: {seen.chats} chats sent, {seen.failed} failed, {seen.misrouted} on a wrong variant, "
        f"{len(seen.restarted)} applications restarted, on every Router after {seen.told_s:.1f} s"
    )


async def test_a_weight_by_helm_upgrade_and_back_by_rollback_restarts_and_fails_nothing(
    installation: Installation, say: Say
) -> None:
    seen = await switch(installation, before=split(FIRST), after=split(MORE), rate=RATE)
    say(line("helm upgrade", seen))
    back = await switch(Rolled(installation), before=split(MORE), after=split(FIRST), rate=RATE)
    say(line("helm rollback", back))
    assert [(each.failed, each.misrouted, each.restarted) for each in (seen, back)] == [(0, 0, ())] * 2
    assert min(seen.chats, back.chats) > 50
    assert installation.weights() == FIRST


async def test_a_variant_comes_and_goes_by_helm_upgrade_and_restarts_no_other(installation: Installation, say: Say) -> None:
    before = installation.pids()
    load = Load(installation.url, RATE)
    async with load.running():
        await asyncio.to_thread(installation.put, {**FIRST, "next": 0})
        added = installation.pids()
        await asyncio.to_thread(installation.put, FIRST)
        removed = installation.pids()
    say(f"a variant comes and goes: {len(load.answers)} chats sent, {len(load.failed())} failed")
    assert load.failed() == []
    assert {name: pids for name, pids in added.items() if name != "llm.chat.next"} == before
    assert {name: pids for name, pids in removed.items() if name != "llm.chat.next"} == before


IN_PLACE: Mapping[str, Mapping[str, Any]] = {
    "limits": {"platform.limits.max_choices": 4},
    "leases": {"platform.models[0].variants[0].max_leases": 32},
    "bounds of replicas": {"platform.models[0].variants[0].autoscaling": {"min_replicas": 1, "max_replicas": 3}},
    "what scaling goes by": {"platform.models[0].variants[0].autoscaling.target_queue_depth": 9},
    "priority": {"platform.models[0].priority": 9},
    "the Router's bounds": {"platform.router.max_open_requests": 5000, "platform.router.drain_timeout_s": 30},
    "a rollout": {"platform.models[0].rollout": {"steps": [{"weight": 50, "pause": "1h"}, {"weight": 100}]}},
    "a shadow": {"platform.models[0].shadow": {"variant": "canary", "percent": 1}},
    "an annotation": {"annotations": {"example.org/team": "ml"}},
}


async def test_edits_that_are_told_to_be_in_place_are(installation: Installation, say: Say) -> None:
    before, told = installation.pids(), {}
    load = Load(installation.url, RATE)
    async with load.running():
        for name, sets in IN_PLACE.items():
            told[name] = await asyncio.to_thread(installation.set, sets)
        await asyncio.sleep(3)
    say(f"{len(IN_PLACE)} edits in place: {len(load.answers)} chats sent, {len(load.failed())} failed")
    assert {name: effect.is_in_place for name, effect in told.items()} == dict.fromkeys(IN_PLACE, True)
    assert (load.failed(), installation.pids()) == ([], before)


@pytest.mark.parametrize(
    "sets",
    [
        pytest.param({"platform.models[0].variants[1].engine.simulated.decode_s_per_token": 0.04}, id="engine"),
        pytest.param({"platform.router.cpus": 0.4}, id="router"),
    ],
)
def test_an_application_that_is_told_to_restart_does_and_no_other(installation: Installation, sets: Mapping[str, Any]) -> None:
    before = installation.pids()
    told = installation.set(sets)
    until(lambda: bool(restarted(before, installation)), timeout_s=SETTLE_S, what="an application has other processes")
    until(lambda: installation.is_running() and installation.answers(), timeout_s=SETTLE_S, what="all applications run")
    assert restarted(before, installation) == set(told.serve.restarted)
    assert len(told.serve.restarted) == 1


def restarted(before: Mapping[str, frozenset[int]], installation: Installation) -> set[str]:
    """Return the applications that have other processes than before, and have as many."""
    now = installation.pids()
    return {name for name, pids in before.items() if now.get(name) and not now[name] & pids}


async def test_traffic_is_split_as_the_values_say(installation: Installation) -> None:
    await asyncio.to_thread(installation.put, {"stable": 0, "canary": 100})
    load = Load(installation.url, RATE)
    async with load.running():
        await asyncio.sleep(3)
    assert Counter(answer.variant for answer in load.answers) == {"canary": len(load.answers)}


def test_helm_test_runs_its_pods_against_the_platform(installation: Installation) -> None:
    logs = installation.target.config.test(RELEASE, timeout=240, logs=True)["logs"]
    for line in (
        "chat answered",
        "chat streamed",
        "weights are as declared: {'chat': {'canary': 10, 'stable': 90}}",
        "over gRPC",
    ):
        assert line in logs, logs
    if installation.target.local is not None:
        codes = installation.target.local.kubelet.codes
        assert {name.removeprefix("demo-manta-test-"): code for name, code in codes.items()} == dict.fromkeys(
            ("chat", "stream", "weights", "grpc-api"), 0
        )


def test_a_typo_stops_the_upgrade_before_anything_is_sent(installation: Installation) -> None:
    history, pids = installation.history(), installation.pids()
    with pytest.raises(HelmError) as refused:
        installation.set({"platform.models[0].variants[0].wieght": 80})
    assert "'/platform/models/0/variants/0': additional properties 'wieght' not allowed" in str(refused.value)
    assert (installation.history(), installation.pids(), installation.weights()) == (history, pids, FIRST)


def test_a_typo_sends_the_api_nothing(installation: Installation) -> None:
    api = local_of(installation).api
    before = len(api.calls)
    with pytest.raises(HelmError):
        installation.set({"platform.models[0].wieght": 80})
    assert [call for call in api.calls[before:] if not call.startswith("GET ")] == []


def test_weights_that_make_no_hundred_stop_the_upgrade(installation: Installation) -> None:
    with pytest.raises(HelmError, match=r"platform\.models\[0\]\.variants: variant weights must sum to 100, got 130"):
        installation.set({"platform.models[0].variants[1].weight": 40})
    assert installation.weights() == FIRST


def test_reused_values_and_a_set_inside_a_list_are_refused(installation: Installation) -> None:
    # Helm replaces lists as a whole: without `-f` the rest of the list would be lost.
    wanted = {"platform": {"models": [{"variants": [{"weight": 80}]}]}}
    with pytest.raises(HelmError, match="missing property 'name'"):
        # Helm writes the reused values into the chart that it was given.
        installation.target.config.upgrade(Chart.load(CHART), RELEASE, wanted, reuse_values=True)
    assert installation.weights() == FIRST


def test_what_only_the_api_server_sees_fails_the_revision_and_not_the_platform(installation: Installation) -> None:
    pids = installation.pids()
    with pytest.raises(HelmError, match="emptyDirr"):
        installation.set({"pod.volumes": [{"name": "scratch", "emptyDirr": {}}]})
    assert installation.history()[-1] == "failed"
    installation.put(FIRST)
    assert (installation.history()[-1], installation.pids()) == ("deployed", pids)


def test_an_image_waits_for_a_second_cluster_and_freezes_weights_until_then(installation: Installation) -> None:
    operator, pids = local_of(installation).operator, installation.pids()
    puts = operator.puts
    installation.set({"image.cpu.tag": "another"})
    kind = next(kind for kind in KINDS if kind.name == "RayService")
    store = local_of(installation).api.store
    until(lambda: bool(store.objects(kind)[0]["status"]["pendingServiceStatus"]), timeout_s=20, what="a second cluster begins")
    installation.upgrade({**values(MORE), **installation.target.values})
    until(lambda: _is_observed(store.objects(kind)[0]), timeout_s=20, what="the operator has seen the new weights")
    assert (operator.puts, installation.weights(), installation.pids()) == (puts, FIRST, pids)


def _is_observed(service: dict[str, Any]) -> bool:
    seen: bool = service["status"]["observedGeneration"] == service["metadata"]["generation"]
    return seen


def test_uninstalling_leaves_nothing_behind(installation: Installation) -> None:
    store = local_of(installation).api.store
    installation.target.config.uninstall(RELEASE)
    assert {kind.name: [each["metadata"]["name"] for each in found] for kind in KINDS if (found := store.objects(kind))} == {}
