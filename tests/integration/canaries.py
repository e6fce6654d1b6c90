"""Platforms with canaries, for tests: what is declared, and how long a rollout takes to end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from serve_app.rollout.table import Share, Split
from tests.integration.platform import Platform, simulated

QUICK = {"prefill_s_per_token": 0.0, "decode_s_per_token": 0.005}
# A prompt of about ten tokens: 0.1 s to the first one.
STEADY = {"prefill_s_per_token": 0.01, "decode_s_per_token": 0.005}
ROUTER = {"cpus": 0.5, "drain_timeout_s": 60}


def weighted(weights: Mapping[str, int]) -> dict[str, Any]:
    """Return a platform whose model has these variants."""
    variants = [simulated(name, weight=weight, latency=QUICK) for name, weight in weights.items()]
    return {"models": [{"name": "chat", "variants": variants}], "router": ROUTER}


def split(weights: Mapping[str, int]) -> Split:
    """Return how such a platform's traffic is shared."""
    shares = tuple(Share(variant=name, weight=weight) for name, weight in weights.items())
    return Split(name="chat", shares=shares, baseline="stable")


def with_rollout(canary: Mapping[str, Any], *, steps: list[dict[str, Any]], **model: Any) -> dict[str, Any]:
    """Return a platform with a rollout whose canary's engine differs from stable's by ``canary``."""
    gates = {"ttft_p95_ratio": 1.5, "ttft_p50_ratio": 1.5, **model.pop("gates", {})}
    rollout = {"steps": steps, "gates": gates, **model.pop("rollout", {})}
    variants = [
        simulated("stable", weight=100, latency=STEADY),
        simulated("canary", weight=0, latency={**STEADY, **canary}),
    ]
    return {"models": [{"name": "chat", "variants": variants, "rollout": rollout, **model}], "router": ROUTER}


@dataclass
class Deployed:
    """A platform on which weights are put as KubeRay puts them: the whole configuration, over Serve's REST API."""

    platform: Platform

    @property
    def url(self) -> str:
        return self.platform.url

    @property
    def applications(self) -> Mapping[str, Any]:
        return self.platform.cluster.applications()

    def put(self, weights: Mapping[str, int]) -> None:
        self.platform.deploy(weighted(weights), wait=False)


def rollout_of(platform: Platform) -> dict[str, Any]:
    """Return how the rollout of model chat stands."""
    found: dict[str, Any] = httpx.get(f"{platform.url}/admin/rollouts/chat", timeout=30).json()
    return found


def history_of(platform: Platform) -> list[dict[str, Any]]:
    """Return the decisions on model chat."""
    found: list[dict[str, Any]] = httpx.get(f"{platform.url}/admin/rollouts/chat/history", timeout=30).json()["decisions"]
    return found


async def until_phase(platform: Platform, *phases: str, timeout_s: float) -> dict[str, Any]:
    """Wait until the rollout is in one of these phases, and return how it stands."""
    deadline_s = time.monotonic() + timeout_s
    while (found := await asyncio.to_thread(rollout_of, platform))["phase"] not in phases:
        assert time.monotonic() < deadline_s, f"the rollout is {found['phase']}: {found['reason']}; {found['readings']}"
        await asyncio.sleep(0.25)
    return found
