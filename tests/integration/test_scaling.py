"""Queue-depth autoscaling on real Ray: up with the load and back, asleep and awake, no stream cut, nothing restarted."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx
import pytest

from benchmarks.canary_switch.open_loop import Load
from tests.integration.conftest import CONFIG
from tests.integration.platform import Platform, simulated
from tests.integration.streams import read_stream

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

APP = "llm.chat.stable"


def autoscaled(latency: dict[str, Any], **scaling: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    variant = config["models"][0]["variants"][0]
    variant["engine"]["simulated"] = latency
    variant["autoscaling"] = {"upscale_delay_s": 1, "downscale_delay_s": 2, "settle_s": 0, **scaling}
    return config


@asynccontextmanager
async def watched(platform: Platform, every_s: float = 0.5) -> AsyncIterator[list[dict[str, Any]]]:
    """Collect what is decided while the block runs."""
    seen: list[dict[str, Any]] = []

    async def watch() -> None:
        while True:
            seen.append(await asyncio.to_thread(platform.scaling))
            await asyncio.sleep(every_s)

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.wait([task])


def targets(seen: Iterable[dict[str, Any]], app: str = APP) -> list[int]:
    """Return the numbers of replicas that were asked for, repeats left out."""
    all_of_them = [look[app]["decision"]["target"] for look in seen if look[app]["decision"]]
    return [all_of_them[0], *(new for old, new in pairwise(all_of_them) if new != old)]


def replica_pids(platform: Platform, app: str = APP) -> set[int]:
    [deployment] = platform.cluster.applications()[app]["deployments"].values()
    return {replica["pid"] for replica in deployment["replicas"]}


def test_a_variant_at_zero_wakes_at_the_first_request_and_answers_it(platform: Platform) -> None:
    scaling = {"min_replicas": 0, "max_replicas": 1, "downscale_to_zero_delay_s": 2, "downscale_delay_s": 100}
    platform.deploy(autoscaled({"decode_s_per_token": 0.01}, **scaling))
    platform.wait_replicas(0)
    body = {"model": "chat", "messages": [{"role": "user", "content": "anyone there?"}], "max_tokens": 3}
    answer = httpx.post(f"{platform.url}/v1/chat/completions", json=body, timeout=120)
    assert (answer.status_code, answer.json()["usage"]["completion_tokens"]) == (200, 3)
    platform.wait_replicas(0)


@pytest.mark.slow
async def test_a_step_of_ten_scales_up_and_back_without_turning_round_once(platform: Platform) -> None:
    latency = {"prefill_s_per_token": 0.0, "decode_s_per_token": 0.05, "slots": 8}
    scaling = {"max_replicas": 6, "upscale_delay_s": 2, "downscale_delay_s": 15, "settle_s": 600}
    router = {**CONFIG["router"], "autoscaling": {"min_replicas": 1, "max_replicas": 3, "upscale_delay_s": 1}}
    await asyncio.to_thread(platform.deploy, {**autoscaled(latency, **scaling), "router": router})
    await asyncio.to_thread(platform.wait_replicas, 1)
    load = Load(platform.url, rate=1, tokens=40)  # 2 s each: 2 at a time, then 20 of them, in 8 slots a replica
    async with watched(platform) as seen:
        async with load.running():
            await asyncio.sleep(12)
            load.rate = 10
            await asyncio.sleep(35)
        ended_s = time.monotonic()
        await asyncio.to_thread(platform.wait_replicas, 1, timeout_s=90)
        took_s = time.monotonic() - ended_s
    rising, falling = _split(targets(seen))
    assert (rising[0], rising == sorted(rising), falling == sorted(falling, reverse=True), falling[-1]) == (1, True, True, 1)
    assert rising[-1] >= 3
    assert max(targets(seen, "router")) <= 2  # the number from before; what waits in a Router for a model is none of its load
    assert load.failed() == []
    assert took_s < 15 + 25  # news, the end of what was decided before, and the drain


def _split(numbers: list[int]) -> tuple[list[int], list[int]]:
    """Return the numbers up to the first highest one, and those from there on."""
    top = numbers.index(max(numbers))
    return numbers[: top + 1], numbers[top:]


async def test_settings_change_in_place_and_what_is_removed_finishes_its_streams(platform: Platform) -> None:
    latency = {"prefill_s_per_token": 0.0, "decode_s_per_token": 0.1, "slots": 64}
    await asyncio.to_thread(platform.deploy, autoscaled(latency, min_replicas=4, max_replicas=4))
    await asyncio.to_thread(platform.wait_replicas, 4)
    before = await asyncio.to_thread(replica_pids, platform)
    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=None)) as client:
        streams = [
            asyncio.create_task(read_stream(client, platform.url, tokens=300, session=f"s{number}")) for number in range(200)
        ]
        await asyncio.sleep(5)
        one = autoscaled(latency, max_replicas=1, target_queue_depth=9)
        await asyncio.to_thread(platform.deploy, one, wait=False)  # Serve would have us wait for the drain
        while not (draining := (await asyncio.to_thread(platform.variant))["replicas"]["draining"]):
            assert not all(stream.done() for stream in streams), "nothing drained while streams ran"
            await asyncio.sleep(0.3)
        done = await asyncio.gather(*streams)
    await asyncio.to_thread(platform.wait_replicas, 1)
    after = await asyncio.to_thread(replica_pids, platform)
    assert draining > 0
    assert [(r.tokens, r.is_done, r.errors) for r in done] == [(300, True, [])] * 200
    assert after < before  # one of the four, not a new one


def shared(budget: int) -> dict[str, Any]:
    """Return two models that share accelerators: one for the public, one that comes first."""

    def model(name: str, priority: int, **scaling: Any) -> dict[str, Any]:
        latency = {"prefill_s_per_token": 0.0, "decode_s_per_token": 0.05, "slots": 4}
        pace = {"upscale_delay_s": 1, "downscale_delay_s": 10, "settle_s": 0, "max_replicas": 3, **scaling}
        return {
            "name": name,
            "priority": priority,
            "variants": [simulated(latency=latency, accelerator="any", autoscaling=pace)],
        }

    models = [model("chat", 1), model("first", 9, min_replicas=0)]
    return {**copy.deepcopy(CONFIG), "models": models, "scaling": {"max_accelerators": budget}}


@pytest.mark.slow
async def test_a_budget_is_never_exceeded_and_goes_to_whom_has_priority(platform: Platform) -> None:
    await asyncio.to_thread(platform.deploy, shared(3), wait=False)
    await asyncio.to_thread(platform.wait_replicas, 1)
    load = Load(platform.url, rate=8, tokens=40)
    async with watched(platform) as seen:
        async with load.running():
            await asyncio.to_thread(_until, lambda: _decision(platform, APP)["ready"] == 3)
            body = {"model": "first", "messages": [{"role": "user", "content": "me first"}], "max_tokens": 40}
            async with httpx.AsyncClient(timeout=180) as client:
                woken = await client.post(f"{platform.url}/v1/chat/completions", json=body)
        await asyncio.sleep(2)
    assert (woken.status_code, load.failed()) == (200, [])
    assert max(look["budget"]["in_use"] for look in seen) == 3
    assert max(targets(seen)) == 3
    assert 1 in targets(seen, "llm.first.stable")


def _until(holds: Any, *, timeout_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.5)


@pytest.mark.slow
async def test_a_stage_grows_by_its_own_queue(platform: Platform) -> None:
    pace = {"max_replicas": 2, "upscale_delay_s": 1, "downscale_delay_s": 4, "settle_s": 0}
    embedder = {"name": "minilm", "source": "sentence-transformers/all-MiniLM-L6-v2", "autoscaling": pace}
    await asyncio.to_thread(platform.deploy, {**copy.deepcopy(CONFIG), "embedders": [embedder]})
    texts = [f"sentence number {number} of a text that is embedded" for number in range(96)]
    is_enough = asyncio.Event()

    async def embed(client: httpx.AsyncClient) -> set[int]:
        statuses = set()
        while not is_enough.is_set():
            answer = await client.post(f"{platform.url}/v1/embeddings", json={"model": "minilm", "input": texts})
            statuses.add(answer.status_code)
        return statuses

    async with watched(platform) as seen, httpx.AsyncClient(timeout=120) as client:
        clients = [asyncio.create_task(embed(client)) for _ in range(4)]
        await asyncio.to_thread(_until, lambda: _decision(platform, "embedder.minilm")["ready"] == 2)
        is_enough.set()
        assert await asyncio.gather(*clients) == [{200}] * 4
        await asyncio.to_thread(_until, lambda: _decision(platform, "embedder.minilm")["target"] == 1)
        await asyncio.sleep(2)  # for the watcher to see it too
    assert targets(seen, "embedder.minilm") == [1, 2, 1]


def _decision(platform: Platform, app: str) -> dict[str, Any]:
    found: dict[str, Any] = platform.scaling()[app]["decision"]
    return found
