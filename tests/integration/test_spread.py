"""Replicas that are to share no node do not, and one more than there are nodes for waits."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.e2e.two_nodes import EnginePlatform

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

APPS = ("llm.chat.stable", "router")
SETTLED_S = 15.0  # Serve places in less than a second what it can place


def config(replicas: int) -> dict[str, Any]:
    engine = {"kind": "simulated", "simulated": {"decode_s_per_token": 0.001}}
    apart = {"cpus": 0.1, "max_replicas_per_node": 1}
    variant = {"name": "stable", "source": "org/model", "engine": engine, "replicas": replicas, **apart}
    return {"models": [{"name": "chat", "variants": [variant]}], "router": {"replicas": replicas, **apart}}


def nodes(platform: EnginePlatform, app: str, *, state: str) -> list[str]:
    """Return the nodes of an application's replicas."""
    deployments = platform.cluster.applications()[app]["deployments"].values()
    return [each.get("node_id", "") for deployment in deployments for each in deployment["replicas"] if each["state"] == state]


def wait_for(platform: EnginePlatform, app: str, replicas: int) -> None:
    deadline_s = time.monotonic() + 120
    while len(nodes(platform, app, state="RUNNING")) != replicas:
        assert time.monotonic() < deadline_s, platform.cluster.applications()[app]
        time.sleep(0.5)


def test_replicas_share_no_node_and_one_too_many_waits_while_the_others_serve() -> None:
    with EnginePlatform(config(2), has_two_nodes=True) as platform:
        platform.cluster.deploy(platform.schema(config(3)))
        time.sleep(SETTLED_S)
        for app in APPS:
            assert len(set(nodes(platform, app, state="RUNNING"))) == 2, app
            assert len(nodes(platform, app, state="STARTING")) == 1, app
        body = {"model": "chat", "prompt": "Hello", "max_tokens": 2}
        answer = httpx.post(f"{platform.url}/v1/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        platform.cluster.deploy(platform.schema(config(2)))
        for app in APPS:
            wait_for(platform, app, 2)
