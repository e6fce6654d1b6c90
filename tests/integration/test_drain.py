"""Replicas that go away while streams are open cut none of them."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from tests.integration.conftest import CONFIG
from tests.integration.platform import Platform
from tests.integration.streams import StreamResult, read_streams

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

STREAMS, TOKENS = 50, 300  # 15 s each at 50 ms a token


def changed(**variant: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    config["models"][0]["variants"][0].update(variant)
    return config


def with_latency(**latency: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    config["models"][0]["variants"][0]["engine"]["simulated"].update(latency)
    return config


async def streams_across(platform: Platform, config: dict[str, Any]) -> list[StreamResult]:
    """Open streams, deploy ``config`` while they run, and read them to their end."""
    streams = asyncio.create_task(read_streams(platform.url, STREAMS, tokens=TOKENS))
    while await asyncio.to_thread(lambda: platform.variant()["running"]) < STREAMS:
        assert not streams.done(), "the streams ended before the change"
        await asyncio.sleep(0.5)
    await asyncio.to_thread(platform.deploy, config, wait=False)
    return await streams


def assert_none_cut(results: list[StreamResult]) -> None:
    assert [r.errors for r in results] == [[]] * STREAMS
    assert [(r.tokens, r.is_done) for r in results] == [(TOKENS, True)] * STREAMS


async def test_scaling_a_variant_down_cuts_no_stream(platform: Platform) -> None:
    platform.deploy(changed(replicas=3))
    platform.wait_replicas(3)
    assert_none_cut(await streams_across(platform, changed(replicas=1)))
    platform.wait_replicas(1)


async def test_redeploying_a_variant_cuts_no_stream(platform: Platform) -> None:
    platform.wait_replicas(1)
    # Another latency is another argument, so Serve replaces the replica.
    assert_none_cut(await streams_across(platform, with_latency(decode_s_per_token=0.04)))
    platform.wait_replicas(1)
