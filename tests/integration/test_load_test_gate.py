"""A rollout that needs a load test, on real Ray: it waits, and `manta loadtest --publish` promotes it or rolls it back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from serve_app.cli import app
from tests.integration.canaries import history_of, rollout_of, until_phase, with_rollout
from tests.integration.platform import Platform

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SCENARIO = """\
name: release
load: {mode: open, shape: {kind: constant, level: 25}}
mix:
  - {kind: chat, model: chat, lengths: {prompt: {tokens: 5}, output: {tokens: 5}}}
duration: 30s
drain: 30s
workers: 1
"""
GATES = "error_rate: 0.05\nmin_requests: 100\n"
STEPS = [{"weight": 50}, {"weight": 100}]
# Only the load test tells a bad canary from a good one here: what is left beside it are hangs.
ONLY_THE_LOAD_TEST = {
    "error_rate": None,
    "ttft_p50_ratio": None,
    "ttft_p95_ratio": None,
    "min_requests": 10,
    "load_test": {"scenario": "release"},
}


def rollout(canary: dict[str, Any]) -> dict[str, Any]:
    return with_rollout(canary, steps=STEPS, gates=ONLY_THE_LOAD_TEST, fallback=False)


def load_test(platform: Platform, folder: Path) -> Result:
    """Run the scenario as an operator does, once the rollout has begun its step."""
    scenario, gates = folder / "scenario.yaml", folder / "gates.yaml"
    scenario.write_text(SCENARIO)
    gates.write_text(GATES)
    words = ["loadtest", str(scenario), "--url", platform.url, "--gate", str(gates), "--wait", "2m", "--publish"]
    return CliRunner().invoke(app, words)


def results(platform: Platform) -> list[dict[str, Any]]:
    """Return the last result of each load test."""
    found: list[dict[str, Any]] = httpx.get(f"{platform.url}/admin/load-tests", timeout=30).json()["load_tests"]
    return found


def waiting_for(split: dict[str, Any]) -> str:
    """Return what the gate on the load test says."""
    return next((r["reason"] for r in split["readings"] if r["gate"] == "load_test"), "")


async def until(platform: Platform, holds: Callable[[dict[str, Any]], bool], *, timeout_s: float = 60.0) -> dict[str, Any]:
    """Return how the rollout stands when something holds of it."""
    deadline_s = time.monotonic() + timeout_s
    while not holds(found := await asyncio.to_thread(rollout_of, platform)):
        assert time.monotonic() < deadline_s, found
        await asyncio.sleep(0.5)
    return found


async def begun(platform: Platform, canary: dict[str, Any]) -> None:
    """Put a rollout into its first step."""
    await asyncio.to_thread(platform.deploy, rollout(canary))
    await asyncio.to_thread(platform.wait_replicas, 1, variant="canary")
    await until(platform, lambda split: split["weights"] == {"stable": 50, "canary": 50} and bool(waiting_for(split)))


async def test_a_step_waits_until_a_healthy_load_test_lets_it_go(platform: Platform, tmp_path: Path) -> None:
    await begun(platform, {})
    assert "no result has been published" in waiting_for(await asyncio.to_thread(rollout_of, platform))
    done = await asyncio.to_thread(load_test, platform, tmp_path)
    assert done.exit_code == 0, done.output
    assert "published: release passed" in done.output
    found = await until(platform, lambda split: bool(split["weights"]["canary"] == 100))
    assert found["phase"] == "running"
    found = await until(platform, lambda split: "before this step" in waiting_for(split))
    (kept,) = await asyncio.to_thread(results, platform)
    assert (kept["result"]["scenario"], kept["result"]["verdict"]) == ("release", "passed")


async def test_a_bad_canary_fails_the_load_test_and_is_rolled_back_by_the_name_of_its_gate(
    platform: Platform, tmp_path: Path
) -> None:
    # Prompts take a little longer than the other test's: another canary, to which that one's result says nothing.
    await begun(platform, {"faults": {"error_ratio": 0.3}, "prefill_s_per_token": 0.011})
    done = await asyncio.to_thread(load_test, platform, tmp_path)
    assert done.exit_code == 1, done.output
    assert "verdict: failed (error_rate)" in done.output
    found = await until_phase(platform, "rolled_back", timeout_s=60)
    assert found["reason"].startswith("load test release failed: error_rate (")
    assert found["weights"] == {"stable": 100, "canary": 0}
    last = (await asyncio.to_thread(history_of, platform))[-1]
    assert (last["action"], last["readings"][-1]["gate"], last["readings"][-1]["verdict"]) == (
        "rolled_back",
        "load_test",
        "roll_back",
    )
