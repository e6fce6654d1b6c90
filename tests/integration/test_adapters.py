"""Adapters on real Ray, with simulated engines: weights, affinity, and changes that restart nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from copy import deepcopy
from typing import Any

import httpx
import pytest

from benchmarks.canary_switch.switch import replica_pids
from tests.integration.platform import Platform, simulated

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

REPLICAS = 3
ENGINE = {
    "kind": "simulated",
    "simulated": {"decode_s_per_token": 0.005},
    "lora": {"max_loras": 1, "max_loaded": 2},
}
VERSIONS = [
    {"name": "v1", "source": "s3://adapters/one", "weight": 50},
    {"name": "v2", "source": "s3://adapters/two", "weight": 50},
]
CONFIG: dict[str, Any] = {
    "models": [
        {
            "name": "chat",
            "variants": [simulated(engine=ENGINE, replicas=REPLICAS)],
            "adapters": [{"name": "legal", "versions": VERSIONS}, {"name": "code", "source": "s3://adapters/code"}],
        }
    ],
    "router": {"cpus": 0.5, "drain_timeout_s": 60},
}


def changed(
    *, weights: tuple[int, int] = (50, 50), sources: tuple[str, str] = ("one", "two"), more: tuple[str, ...] = ()
) -> Any:
    """Return the configuration with other weights and sources of the versions, and more adapters."""
    config = deepcopy(CONFIG)
    adapters = config["models"][0]["adapters"]
    for version, weight, source in zip(adapters[0]["versions"], weights, sources, strict=True):
        version.update(weight=weight, source=f"s3://adapters/{source}")
    adapters.extend({"name": name, "source": f"s3://adapters/{name}"} for name in more)
    return config


async def chat(client: httpx.AsyncClient, model: str, session: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 3}
    return await client.post("/v1/chat/completions", json=body, headers={"x-session-id": session})


async def many(platform: Platform, model: str, sessions: range, *, at_once: int = 20) -> list[httpx.Response]:
    """Return the answers of one chat in each session."""
    gate = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(base_url=platform.url, timeout=60) as client:

        async def one(session: int) -> httpx.Response:
            async with gate:
                return await chat(client, model, f"s{session}")

        return list(await asyncio.gather(*map(one, sessions)))


def version_of(answer: httpx.Response) -> str:
    """Return the version that answered: header and text agree on it."""
    assert answer.status_code == 200, answer.text
    version = answer.headers["x-manta-adapter-version"]
    assert answer.json()["choices"][0]["message"]["content"].startswith(f"legal/{version} ")
    assert answer.json()["model"] == answer.headers["x-manta-model"] == "chat:legal"
    return version


def loaded(platform: Platform, adapter: str) -> dict[str, int]:
    """Return in how many replicas each version of an adapter is loaded."""
    [model] = platform.status()["models"]
    found = next(each for each in model["adapters"] if each["name"] == adapter)
    return {version["name"]: version["loaded_replicas"] for version in found["versions"]}


async def until_loaded(platform: Platform, adapter: str, wanted: dict[str, int]) -> None:
    deadline_s = time.monotonic() + 30
    while (seen := await asyncio.to_thread(loaded, platform, adapter)) != wanted:
        assert time.monotonic() < deadline_s, f"{seen}, wanted {wanted}"
        await asyncio.sleep(0.3)


@pytest.fixture
def adapted(bare_platform: Platform) -> Platform:
    """The running platform with CONFIG in force."""
    bare_platform.deploy(CONFIG)
    bare_platform.wait_replicas(REPLICAS)
    return bare_platform


async def test_versions_share_the_conversations_and_each_keeps_its_own(adapted: Platform) -> None:
    first = [version_of(answer) for answer in await many(adapted, "chat:legal", range(200))]
    again = [version_of(answer) for answer in await many(adapted, "chat:legal", range(200))]
    assert first == again
    assert 70 < Counter(first)["v1"] < 130


async def test_one_conversation_after_the_other_stays_on_one_replica(adapted: Platform) -> None:
    answers = await many(adapted, "chat:code", range(30), at_once=1)
    assert {answer.status_code for answer in answers} == {200}
    await until_loaded(adapted, "chat:code", {"v1": 1})


async def test_the_model_itself_answers_as_ever(adapted: Platform) -> None:
    [answer] = await many(adapted, "chat", range(1))
    assert answer.json()["choices"][0]["message"]["content"] == "simulated answer with "
    assert "x-manta-adapter-version" not in answer.headers


async def test_adapters_change_in_place(adapted: Platform) -> None:
    before = replica_pids(adapted.cluster.applications())
    ended = asyncio.Event()
    failed: list[str] = []

    async def load() -> None:
        session = 0
        while not ended.is_set():
            session += 20
            for answer in await many(adapted, "chat:legal", range(session, session + 20)):
                if answer.status_code != 200:
                    failed.append(answer.text)

    loading = asyncio.create_task(load())
    await asyncio.sleep(2)
    await asyncio.to_thread(adapted.deploy, changed(weights=(100, 0), more=("poems",)))
    await until_answered(adapted, "chat:poems")
    ended.set()
    await loading
    assert failed == []
    assert {version_of(answer) for answer in await many(adapted, "chat:legal", range(50))} == {"v1"}
    assert replica_pids(adapted.cluster.applications()) == before


async def until_answered(platform: Platform, model: str) -> None:
    deadline_s = time.monotonic() + 30
    while (await many(platform, model, range(1)))[0].status_code != 200:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.3)


async def test_another_source_of_a_version_takes_the_place_of_the_first(adapted: Platform) -> None:
    await asyncio.to_thread(adapted.deploy, changed(weights=(100, 0)))
    await asyncio.sleep(2.5)  # Routers follow within two seconds
    await many(adapted, "chat:legal", range(10), at_once=1)
    before = replica_pids(adapted.cluster.applications())
    await asyncio.to_thread(adapted.deploy, changed(weights=(100, 0), sources=("new", "two")))
    await asyncio.sleep(2.5)
    assert {version_of(answer) for answer in await many(adapted, "chat:legal", range(10), at_once=1)} == {"v1"}
    assert replica_pids(adapted.cluster.applications()) == before


def test_adapters_are_listed_and_their_split_is_commanded_by_the_public_name(adapted: Platform) -> None:
    cards = httpx.get(f"{adapted.url}/v1/models", timeout=30).json()["data"]
    assert [(card["id"], card.get("parent")) for card in cards] == [
        ("chat", None),
        ("chat:legal", "chat"),
        ("chat:code", "chat"),
    ]
    assert httpx.get(f"{adapted.url}/readyz?model=chat:legal", timeout=30).status_code == 200
    made = httpx.post(f"{adapted.url}/admin/rollouts/chat:legal/abort", timeout=30)
    assert (made.status_code, made.json()["weights"]) == (200, {"v1": 100, "v2": 0}), made.text
