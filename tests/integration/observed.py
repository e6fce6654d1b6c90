"""A platform that uses all that has metrics, and load that makes each of them move."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from pathlib import Path
from typing import Any

import httpx

from benchmarks.canary_switch.open_loop import Load
from loadtests.scenario import Scenario
from tests.integration.platform import simulated

RATE, TOKENS = 12.0, 5
USERS, TIMED_S = 12, 45
BURST = 12
# Buckets of gaps end at 0.1423 and 0.1729 s. All gaps of this engine are in one of them, and near its end: quantiles within a
# bucket are reckoned as if its values were spread evenly over it, which is off by less there.
GAP_S = 0.162


def everything(store: Path) -> dict[str, Any]:
    """Return a platform with a rollout, a shadow, prices, a pipeline, and models that scale, are soon full, or fail."""
    # Two slots are too few for what is asked: replicas are added.
    quick = {"prefill_s_per_token": 0.001, "decode_s_per_token": 0.05, "slots": 2}
    scaling = {"min_replicas": 1, "max_replicas": 2, "upscale_delay_s": 1, "downscale_delay_s": 2, "settle_s": 0}
    chat = {
        "name": "chat",
        "variants": [
            simulated("stable", weight=100, latency=quick, autoscaling=scaling, price_per_hour=2.5),
            # Some of its requests fail, and another variant makes them good: retries. Too few for the gate.
            simulated("canary", weight=0, latency={**quick, "faults": {"error_ratio": 0.1}}, price_per_hour=1.0),
        ],
        "rollout": {"steps": [{"weight": 30, "pause": "1h"}], "gates": {"error_rate": 0.6, "ttft_p95_ratio": 10.0}},
        "shadow": {"variant": "canary", "percent": 20},
    }
    small = {"name": "small", "variants": [simulated(latency={"decode_s_per_token": 0.3}, max_leases=1)]}
    ill = {"name": "ill", "variants": [simulated(latency={"faults": {"error_ratio": 1.0}})]}
    timed = {"name": "timed", "variants": [simulated(latency={"prefill_s_per_token": 0.004, "decode_s_per_token": GAP_S})]}
    version = {"name": "v1", "embedder": "minilm", "collection": "birds", "top_k": 1, "model": "chat"}
    version["prompt"] = "{% for hit in hits %}{{ hit.text }}\n{% endfor %}{{ question }}"
    return {
        "models": [chat, small, ill, timed],
        "embedders": [{"name": "minilm", "source": "sentence-transformers/all-MiniLM-L6-v2"}],
        "pipelines": [{"name": "assistant", "versions": [version]}],
        "vector_store": {"uri": str(store)},
        "limits": {"max_waiting": 3},
        "router": {"cpus": 0.5, "drain_timeout_s": 60},
    }


def timed_scenario(url: str) -> Scenario:
    """Return a load test of streams whose times to the first token differ, on a model that nobody else asks."""
    lengths = {"prompt": {"median": 60, "mean": 75, "most": 250}, "output": {"tokens": 16}}
    return Scenario.model_validate(
        {
            "name": "timed",
            "target": {"url": url},
            "load": {"mode": "closed", "shape": {"kind": "constant", "level": USERS}},
            "mix": [{"kind": "chat", "model": "timed", "lengths": lengths}],
            "duration": TIMED_S,
            "workers": 1,
        }
    )


async def drive(url: str, *, for_s: float) -> None:
    """Ask everything of everybody for so long."""
    load = Load(url, RATE, tokens=TOKENS)
    limits = httpx.Limits(max_connections=None)
    async with load.running(), httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        ends = asyncio.get_running_loop().time() + for_s
        for number in itertools.count():
            if asyncio.get_running_loop().time() > ends:
                return
            await asyncio.gather(
                client.post("/v1/embeddings", json={"model": "minilm", "input": ["owls hunt at night", f"text {number}"]}),
                _chat(client, "assistant", f"Where do penguins live? {number}", stream=bool(number % 2)),
                _leave(client),
                _chat(client, "ill", f"how are you? {number}"),
                *(_chat(client, "small", f"burst {number} {one}") for one in range(BURST)),  # more than it may hold: 429
            )


async def _chat(client: httpx.AsyncClient, model: str, text: str, *, stream: bool = False) -> int:
    body = {"model": model, "stream": stream, "max_tokens": 2, "messages": [{"role": "user", "content": text}]}
    return (await client.post("/v1/chat/completions", json=body)).status_code


async def _leave(client: httpx.AsyncClient) -> None:
    """Ask for a long answer, and leave in the middle of it."""
    body = {"model": "chat", "stream": True, "max_tokens": 500, "messages": [{"role": "user", "content": "a long story"}]}
    with contextlib.suppress(httpx.ReadTimeout):
        async with client.stream("POST", "/v1/chat/completions", json=body, timeout=httpx.Timeout(30, read=0.01)) as answer:
            async for _ in answer.aiter_bytes():
                await asyncio.sleep(0)
