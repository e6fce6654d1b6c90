"""The seams that queue-depth autoscaling hangs on, on real Ray."""

from __future__ import annotations

import asyncio
import copy
import time
from typing import Any

import httpx
import pytest

from tests.integration.conftest import CONFIG
from tests.integration.platform import Platform
from tests.integration.streams import read_streams

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def autoscaled(latency: dict[str, Any], **scaling: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    variant = config["models"][0]["variants"][0]
    variant["engine"]["simulated"] = latency
    variant["autoscaling"] = {"upscale_delay_s": 1, "downscale_delay_s": 2, **scaling}
    return config


def test_a_variant_at_zero_wakes_at_the_first_request_and_answers_it(platform: Platform) -> None:
    platform.deploy(autoscaled({"decode_s_per_token": 0.01}, min_replicas=0, max_replicas=1))
    platform.wait_replicas(0)
    body = {"model": "chat", "messages": [{"role": "user", "content": "anyone there?"}], "max_tokens": 3}
    answer = httpx.post(f"{platform.url}/v1/chat/completions", json=body, timeout=120)
    assert (answer.status_code, answer.json()["usage"]["completion_tokens"]) == (200, 3)
    platform.wait_replicas(0)


async def test_waiting_requests_reach_the_policy_and_add_replicas(platform: Platform) -> None:
    latency = {"decode_s_per_token": 0.1, "slots": 2}
    await asyncio.to_thread(platform.deploy, autoscaled(latency, max_replicas=3, target_queue_depth=1))
    streams = asyncio.create_task(read_streams(platform.url, 16, tokens=60))
    most, deadline_s = 0, time.monotonic() + 60
    while most < 3 and time.monotonic() < deadline_s:
        most = max(most, (await asyncio.to_thread(platform.variant))["replicas"]["ready"])
        await asyncio.sleep(0.5)
    assert most == 3
    assert [(r.tokens, r.errors) for r in await streams] == [(60, [])] * 16
