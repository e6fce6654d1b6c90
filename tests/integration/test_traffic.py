"""Weights change in place; routing outlives the deployment that keeps it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import Any

import httpx
import psutil
import pytest

from tests.integration.platform import Platform, simulated

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def split(stable: int) -> dict[str, Any]:
    latency = {"decode_s_per_token": 0.0}
    variants = [
        simulated("stable", weight=stable, latency=latency),
        simulated("canary", weight=100 - stable, latency=latency),
    ]
    return {"models": [{"name": "chat", "variants": variants}], "router": {"cpus": 0.5, "drain_timeout_s": 60}}


def variants_of(platform: Platform, sessions: int) -> dict[str, str]:
    """Return the variant that answered each session."""
    found = {}
    with httpx.Client(base_url=platform.url, timeout=60) as client:
        for i in range(sessions):
            body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
            answer = client.post("/v1/chat/completions", json=body, headers={"x-session-id": f"s{i}"})
            assert answer.status_code == 200, answer.text
            found[f"s{i}"] = answer.headers["x-manta-variant"]
    return found


def processes(platform: Platform, title: str) -> set[int]:
    """Return the pids of this cluster's processes with the title."""
    token = platform.cluster.token
    found = set()
    for process in psutil.process_iter(["pid", "cmdline"]):
        if any(title in part for part in process.info["cmdline"] or ()):
            try:
                if process.environ().get("MANTA_INTERNAL_TOKEN") == token:
                    found.add(process.info["pid"])
            except psutil.Error:
                continue
    return found


def test_a_weight_change_moves_only_what_it_must_and_restarts_nothing(platform: Platform) -> None:
    platform.deploy(split(90))
    platform.wait_replicas(1, variant="canary")
    before, pids = variants_of(platform, 100), processes(platform, "ServeReplica")
    assert Counter(before.values())["canary"] > 0
    platform.deploy(split(50), wait=False)
    deadline_s = time.monotonic() + 60
    while platform.variant(variant="canary")["weight"] != 50:
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    after = variants_of(platform, 100)
    assert 30 <= Counter(after.values())["canary"] <= 70
    assert [s for s in before if before[s] == "canary" and after[s] == "stable"] == []
    assert processes(platform, "ServeReplica") == pids


def test_routing_outlives_the_death_of_rollouts(platform: Platform) -> None:
    platform.deploy(split(100))
    [rollouts] = processes(platform, "ServeReplica:rollouts")
    os.kill(rollouts, signal.SIGKILL)
    assert set(variants_of(platform, 50).values()) == {"stable"}
    deadline_s = time.monotonic() + 90
    while not processes(platform, "ServeReplica:rollouts") - {rollouts}:
        assert time.monotonic() < deadline_s, "Serve has not restarted Rollouts"
        time.sleep(0.5)
    time.sleep(8)  # longer than the restarted directory takes to become complete
    assert set(variants_of(platform, 20).values()) == {"stable"}
    assert platform.variant()["replicas"]["ready"] == 1
