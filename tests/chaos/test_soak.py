"""Mixed load and a random fault every minute, MANTA_SOAK_MINUTES long: nothing leaks, and every failure has its reason."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.cluster import HEAD, ChaosCluster
from tests.chaos.faults import LIES, PARTS, Note, cut_off, lying, out_of_descriptors, spread
from tests.chaos.processes import frozen, kill
from tests.chaos.soak import Happened, ends, happened, sampled, unexplained
from tests.chaos.steady import SteadyLoad

MINUTES = float(os.environ.get("MANTA_SOAK_MINUTES", "5"))
REPORT = "MANTA_SOAK_REPORT"  # a file that gets the figures as JSON
HELD_S = 10.0
NOTICED_S = 12.0  # until Serve has looked at its replicas
pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(60 * MINUTES + 900)]

# How requests may end that had begun to be answered; whatever else goes wrong is nobody's fault but ours.
BROKEN = ("broken", "cut")


def test_an_hour_of_faults_leaves_nothing_behind(
    cluster: ChaosCluster, load: SteadyLoad, note: Note, record_property: Callable[[str, object], None]
) -> None:
    faults: list[Happened] = []
    began_s = time.monotonic()
    with sampled(cluster) as samples:
        for at_s, act in enumerate(kinds(cluster, load), start=1):
            fault = act()
            time.sleep(NOTICED_S)
            cluster.wait_running()
            back_s = time.monotonic()
            load.wait_calm()
            faults.append(replace(fault, back_s=back_s, calm_s=time.monotonic()))
            if time.monotonic() - began_s >= 60 * MINUTES:
                break
            time.sleep(max(0.0, began_s + 60 * at_s - time.monotonic()))
    over_s = time.monotonic()
    load.wait_ended(over_s)
    for fault in faults:
        note(load.effect(f"{fault.fault} (soak)", began_s=fault.began_s, back_s=fault.back_s, ended_s=fault.calm_s))
    records = load.records(began_s, over_s)
    wrong = unexplained(records, faults)
    seen = {
        "minutes": (time.monotonic() - began_s) / 60,
        "requests": len(records),
        "ends": ends(records),
        "faults": [each.fault for each in faults],
        "held": samples.table(),
        "grown": samples.grown(),
        "unexplained": [f"{each.kind} {each.began_s - began_s:.1f} {each.end} {each.detail}" for each in wrong[:50]],
    }
    record_property("soak", seen)
    if path := os.environ.get(REPORT):
        Path(path).write_text(json.dumps({**seen, "series": {**samples.held, "in all": samples.in_all}}), encoding="utf-8")
    assert wrong == [], seen
    assert samples.grown() == [], seen


def kinds(cluster: ChaosCluster, load: SteadyLoad) -> Iterator[Callable[[], Happened]]:
    """Return faults in a random order without end; each kind comes once before one comes again."""
    draw = random.Random(11)  # noqa: S311
    acts = [*(killed(cluster, part) for part in PARTS), *(held(cluster, part) for part in PARTS)]
    acts += [*(told_lies(cluster, lie) for lie in LIES), controller(cluster), haproxy(cluster), manager(cluster)]
    acts += [worker(cluster, load), descriptors(cluster)]
    while True:
        draw.shuffle(acts)
        yield from acts


def killed(cluster: ChaosCluster, part: str) -> Callable[[], Happened]:
    """Kill the replica of a part that has lived longest."""
    title = ":".join(PARTS[part])
    return lambda: happened(f"{part} killed", lambda: kill(cluster.find(title)[0]), explains=BROKEN)


def held(cluster: ChaosCluster, part: str) -> Callable[[], Happened]:
    """Freeze one replica of a part."""
    title = ":".join(PARTS[part])
    return during(f"{part} frozen", lambda: frozen(cluster.find(title)[0]))


def told_lies(cluster: ChaosCluster, lie: str) -> Callable[[], Happened]:
    """Have one LLM replica misbehave."""
    return during(f"LLM replica {lie}", lambda: lying(cluster, lie))


def controller(cluster: ChaosCluster) -> Callable[[], Happened]:
    """Kill Serve's controller."""
    return lambda: happened("Serve controller killed", lambda: kill(cluster.find("ServeController", node=HEAD)[0]))


def haproxy(cluster: ChaosCluster) -> Callable[[], Happened]:
    """Kill the HAProxy of a worker: the newest, as the older ones only end their streams."""

    def act() -> None:
        kill(next(found[-1] for node in cluster.workers if (found := cluster.find("haproxy -db", node=node.name))))

    return lambda: happened("HAProxy killed", act, explains=BROKEN)


def manager(cluster: ChaosCluster) -> Callable[[], Happened]:
    """Kill the proxy manager of a worker, whose HAProxy goes with it."""

    def act() -> None:
        kill(next(found[0] for node in cluster.workers if (found := cluster.find("HAProxyManager", node=node.name))))

    return lambda: happened("proxy manager killed", act, explains=BROKEN)


def worker(cluster: ChaosCluster, load: SteadyLoad) -> Callable[[], Happened]:
    """Cut a worker off, once every part has a copy elsewhere."""

    def cut() -> AbstractContextManager[None]:
        spread(cluster, load)
        return cut_off(cluster, "w2")

    return during("worker cut off", cut)


def descriptors(cluster: ChaosCluster) -> Callable[[], Happened]:
    """Take file descriptors from a Router."""
    return during("Router out of file descriptors", lambda: out_of_descriptors(cluster.find("router:Router")[0]))


def during(fault: str, begin: Callable[[], AbstractContextManager[None]]) -> Callable[[], Happened]:
    """Let a fault last for some seconds."""

    def act() -> None:
        with begin():
            time.sleep(HELD_S)

    return lambda: happened(f"{fault} for {HELD_S:.0f} s", act, explains=BROKEN)
