"""Five times more requests than the replicas can take, by callers of three priorities."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from serve_app.credentials import new_key
from tests.chaos import platform
from tests.chaos.cluster import ChaosCluster
from tests.chaos.faults import Note
from tests.chaos.load import Record
from tests.chaos.steady import SteadyLoad, effect_of, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

HIGH, NORMAL, LOW = 9, 5, 1
KEYS = {HIGH: new_key("urgent"), NORMAL: new_key("normal"), LOW: new_key("batch")}
CAPACITY_PER_S = platform.SLOTS * 2 / (platform.TOKENS * platform.TOKEN_S)
ALWAYS = {HIGH: 0.25, NORMAL: 0.55}  # of the capacity
MORE = {NORMAL: 1.2, LOW: 3.0}  # for a while: five times the capacity in all
OVERLOAD_S = 40.0
LEARNED_S = 5.0  # until a Router knows how fast places come free
SLO_S = 2.5  # to the first token
HIGH_SLO_S = 1.0
TOLD_S = 0.1
BACK_S = 10.0


@pytest.fixture(scope="module")
def small(cluster: ChaosCluster) -> Iterator[ChaosCluster]:
    """The platform with few places, and keys; afterwards as it was."""
    before = cluster.deployed
    cluster.deploy(platform.small(before, KEYS))
    cluster.wait_running()
    wait_until(lambda: all(ask(url) == 200 for url in cluster.urls() for _ in range(8)), within_s=60)
    yield cluster
    cluster.deploy(before)
    cluster.wait_running()


def ask(url: str) -> int:
    """Return the status of a chat with a key."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    headers = {"authorization": f"Bearer {KEYS[HIGH]}"}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60).status_code


def test_under_five_times_the_load_the_replicas_work_for_those_who_matter_and_the_rest_is_told_at_once(
    small: ChaosCluster, tmp_path: Path, note: Note, record_property: Callable[[str, object], None]
) -> None:
    routers = small.find("router:Router")
    with SteadyLoad(small.urls(), tmp_path / "always.jsonl", *options(ALWAYS)) as always:
        time.sleep(15)
        before_b = sum(router.memory_info().rss for router in routers)
        began_s = time.monotonic()
        with SteadyLoad(small.urls(), tmp_path / "more.jsonl", *options(MORE)) as more:
            time.sleep(OVERLOAD_S)
            after_b = sum(router.memory_info().rss for router in routers)
            ended_s = time.monotonic()
        time.sleep(max(0.0, ended_s + BACK_S + 15 - time.monotonic()))
        over_s = time.monotonic() - 5
    records = [*always.records(0), *more.records(0)]
    during = [record for record in records if began_s + LEARNED_S <= record.began_s < ended_s - LEARNED_S]
    afterwards = [record for record in always.records(0) if ended_s + BACK_S <= record.began_s < over_s]
    seen = figures(during, seconds=ended_s - began_s - 2 * LEARNED_S)
    seen |= {"router_mib_before": before_b / 2**20, "router_mib_after": after_b / 2**20}
    record_property("overload", seen)
    effect = effect_of("five times the load", during, began_s=began_s, back_s=began_s, ended_s=ended_s)
    note(replace(effect, details=[json.dumps(seen)]))
    assert seen["goodput_ratio"] >= 0.9, seen
    assert seen["high_ttft_p95_s"] <= HIGH_SLO_S, seen
    assert seen["high_refused"] == seen["failed"] == 0, seen
    assert seen["refused_p95_s"] <= TOLD_S, seen
    assert after_b - before_b < 200 * 2**20, seen
    assert len(afterwards) > 50
    assert [record for record in afterwards if record.end != "ok" or ttft_s(record) > SLO_S] == []


def options(shares: dict[int, float]) -> list[str]:
    """Return the load's options for these parts of the capacity."""
    return ["--tokens", str(platform.TOKENS), *(f"--keyed={KEYS[p]}={share * CAPACITY_PER_S}" for p, share in shares.items())]


def figures(during: Sequence[Record], *, seconds: float) -> dict[str, float]:
    """Return what an overload is judged by."""
    good = [record for record in during if record.end == "ok" and ttft_s(record) <= SLO_S]
    high = [record for record in during if record.priority == KEYS[HIGH]]
    told = [record.ended_s - record.began_s for record in during if record.end == "refused"]
    return {
        "requests_per_s": len(during) / seconds,
        "goodput_ratio": len(good) / seconds / CAPACITY_PER_S,
        "high": len(high),
        "high_refused": sum(record.end == "refused" for record in high),
        "high_ttft_p95_s": _p95([ttft_s(record) for record in high]),
        "refused": len(told),
        "refused_p50_s": statistics.median(told),
        "refused_p95_s": _p95(told),
        "failed": sum(record.end not in ("ok", "refused") for record in during),
    }


def ttft_s(record: Record) -> float:
    """Return how long the first token took."""
    return (record.first_s or record.ended_s) - record.began_s


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]
