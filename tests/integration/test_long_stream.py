"""A long generation lives through everything that happens to the platform around it.

MANTA_LONG_STREAM_S=600 makes the streams ten minutes long; a minute is enough to catch a cut at a change.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
from typing import Any

import pytest

from tests.integration.conftest import CONFIG
from tests.integration.platform import Platform, simulated
from tests.integration.streams import read_streams

STREAM_S = float(os.environ.get("MANTA_LONG_STREAM_S", "60"))
S_PER_TOKEN = 0.5
STREAMS = 20

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(STREAM_S + 600)]


def changes() -> list[dict[str, Any]]:
    """Return configurations that differ from one another in everything but the variant that is answering."""
    slow = simulated(latency={"decode_s_per_token": S_PER_TOKEN}, replicas=2, drain_timeout_s=STREAM_S + 120)
    base = copy.deepcopy(CONFIG)
    base["models"] = [{"name": "chat", "variants": [slow]}]
    base["router"] = {"cpus": 0.5, "drain_timeout_s": STREAM_S + 120}
    another = {"name": "another", "variants": [simulated()]}
    return [
        base,
        {**base, "models": [*base["models"], another]},
        {**base, "models": [{"name": "chat", "variants": [{**slow, "replicas": 4}]}]},
        {**base, "models": [{"name": "chat", "variants": [{**slow, "weight": 50}, simulated("canary", weight=50)]}]},
        {**base, "router": {**base["router"], "replicas": 3}},
        {**base, "models": [{"name": "chat", "variants": [{**slow, "replicas": 1}]}]},
        {**base, "router": {**base["router"], "replicas": 1}},
        {**base, "limits": {"max_waiting": 7}},
    ]


async def test_a_long_stream_survives_scaling_and_changes_of_everything_else(platform: Platform) -> None:
    first, *later = changes()
    platform.deploy(first)
    platform.wait_replicas(2)
    tokens = int(STREAM_S / S_PER_TOKEN)
    streams = asyncio.create_task(read_streams(platform.url, STREAMS, tokens=tokens))
    made = 0
    for config in itertools.cycle([*later, first]):
        # Serve needs a while for each: so many changes that every one of them happens to the streams.
        done, _ = await asyncio.wait([streams], timeout=STREAM_S / (2 * len(later)))
        if done:
            break
        await asyncio.to_thread(platform.deploy, config, wait=False)
        made += 1
    results = await streams
    assert [(r.tokens, r.is_done, r.errors) for r in results] == [(tokens, True, [])] * STREAMS
    assert made >= len(later)
