"""What tests share that take processes of an engine away: who is there, and who comes in their place."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import psutil

from tests.e2e.two_nodes import EnginePlatform


def title(process: psutil.Process | None) -> str:
    """Return a process's command line; empty when it is gone."""
    try:
        return " ".join(process.cmdline()) if process is not None else ""
    except psutil.Error:
        return ""


def ready(platform: EnginePlatform) -> set[str]:
    """Return the ids of the replicas of ``chat`` that take work."""
    return {each["replica_id"] for each in platform.replicas("chat") if each["state"] == "ready"}


def placement_groups(platform: EnginePlatform) -> int:
    """Return how many placement groups of the cluster hold resources."""
    cluster = platform.cluster
    headers = {"authorization": f"Bearer {cluster.token}"}
    answer = httpx.get(f"{cluster.dashboard_url}/api/v0/placement_groups", headers=headers, timeout=60)
    groups = answer.json()["data"]["result"]["result"]
    return sum(group["state"] == "CREATED" for group in groups)


def wait_until(condition: Callable[[], bool], *, within_s: float) -> None:
    """Wait for it. Raises AssertionError when it does not come."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not so after {within_s} s"
        time.sleep(0.5)
