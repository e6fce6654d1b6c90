from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from serve_app import timeline as timeline_module
from serve_app.contracts import EngineLoad, ReplicaState
from serve_app.gateway import Gateway
from serve_app.pool import Target
from serve_app.timeline import EVERY_S, KEPT_S, Figures, Timeline, figures_now, keep_sampling
from tests.unit.serve_app.fakes import document, entry, gateway, model, snapshot, turns, until

STABLE, CANARY = ("chat", "stable"), ("chat", "canary")
TWO = document(models=(model(("stable", 90), ("canary", 10), max_leases=1),))


def figures(running: int) -> Figures:
    return Figures(weight=100, ready=1, queue_depth=0, running=running)


def test_what_was_sampled_is_told_as_lists_of_one_length() -> None:
    timeline = Timeline()
    timeline.add({STABLE: figures(1)}, now_s=1000.0)
    timeline.add({STABLE: figures(2), CANARY: figures(3)}, now_s=1006.0)
    report = timeline.report(now_s=1006.0)
    assert (report["times"], [(each["variant"], each["running"]) for each in report["series"]]) == (
        [1000, 1005],
        [("canary", [None, 3]), ("stable", [1, 2])],
    )
    assert report["series"][1] == {
        "model": "chat",
        "variant": "stable",
        "weight": [100, 100],
        "ready": [1, 1],
        "queue_depth": [0, 0],
        "running": [1, 2],
    }


def test_no_more_is_kept_than_is_promised() -> None:
    timeline = Timeline()
    for at_s in range(0, 3 * KEPT_S, EVERY_S):
        timeline.add({STABLE: figures(0)}, now_s=at_s)
    times = timeline.report(now_s=3 * KEPT_S)["times"]
    assert (len(timeline._samples), times[0], times[-1]) == (KEPT_S // EVERY_S, 2 * KEPT_S + EVERY_S, 3 * KEPT_S - EVERY_S)


def test_what_is_too_old_is_not_told() -> None:
    timeline = Timeline()
    timeline.add({STABLE: figures(0)}, now_s=0.0)
    assert timeline.report(now_s=KEPT_S)["times"] == []


@pytest.mark.parametrize("later_s", [0.0, -60.0], ids=["the-same-seconds", "a-clock-set-back"])
def test_times_go_up_whatever_the_clock_does(later_s: float) -> None:
    timeline = Timeline()
    timeline.add({STABLE: figures(1)}, now_s=100.0)
    timeline.add({STABLE: figures(2)}, now_s=100.0 + later_s)
    report = timeline.report(now_s=100.0)
    assert (report["times"], report["series"][0]["running"]) == ([100 + later_s], [2])


def loaded() -> Gateway:
    made = gateway()
    load = EngineLoad(waiting=3, running=2, open_requests=5)
    late = entry("r2", state=ReplicaState.STARTING, url="")
    gone = replace(entry("x1", "removed"), load=load)
    made.update(snapshot(replace(entry("r1"), load=load), late, gone, routing=TWO))
    return made


def test_a_sample_has_every_declared_variant_and_no_other() -> None:
    assert figures_now(loaded()) == {STABLE: Figures(90, 1, 3, 2), CANARY: Figures(10, 0, 0, 0)}


async def test_the_queue_has_the_requests_that_the_router_holds() -> None:
    made = loaded()
    target = Target("chat", "canary", 1)
    waiting = asyncio.create_task(made.pool.lease(lambda: target, prefix="p", timeout_s=60.0))
    await turns()
    assert figures_now(made)[CANARY].queue_depth == 1
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_sampling_goes_on_when_a_sample_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    timeline, made = Timeline(), loaded()
    faults = [OSError("first")]

    def now(_: Gateway) -> dict[tuple[str, str], Figures]:
        if faults:
            raise faults.pop()
        return {STABLE: figures(1)}

    monkeypatch.setattr(timeline_module, "figures_now", now)
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        sampling = asyncio.create_task(keep_sampling(timeline, made, wall=lambda: EVERY_S - 0.001))
        await until(lambda: timeline._samples)
        sampling.cancel()
        await asyncio.wait([sampling])
    assert caplog.text.count("a sample of the timeline failed") == 1
