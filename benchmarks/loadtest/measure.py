"""Measure: one run of the instrument, as `manta loadtest` makes it, without the command line."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from loadtests import runner
from loadtests.figures import Figures, figures
from loadtests.scenario import Scenario
from loadtests.scenario_file import FoundScenario
from serve_app.cluster import free_ports

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """What a run gave, and how much of a CPU its busiest worker used."""

    figures: Figures
    busy_ratio: float


def measure(url: str, load: Mapping[str, Any], *, output: Mapping[str, Any], **fields: Any) -> Run:
    """Run chats against a target. ``output`` is how long answers are; ``fields`` are a scenario's."""
    lengths = {"prompt": {"tokens": 16}, "output": output}
    document = {
        "name": "benchmark",
        "target": {"url": url},
        "load": load,
        "mix": [{"kind": "chat", "model": "chat", "lengths": lengths}],
        "workers": 1,
        **fields,
    }
    scenario = Scenario.model_validate(document)
    made = runner.run(FoundScenario(scenario, Path()), csv=None, on_progress=lambda _: None)
    busy = max((busy_s / made["measured_s"] for busy_s in made["busy_s"].values()), default=0.0)
    return Run(figures(scenario, made), busy)


@contextmanager
def target(*options: str) -> Iterator[str]:
    """Run `benchmarks.loadtest.target` on a free port; yields its URL."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.loadtest.target", "--port", str(port), *options]
    with subprocess.Popen(command) as process:  # noqa: S603 -- a list that is made here
        try:
            _wait(url)
            yield url
        finally:
            process.terminate()


def truth(url: str) -> dict[str, Any]:
    """Return what the target really did."""
    document: dict[str, Any] = httpx.get(f"{url}/truth", timeout=30).json()
    return document


def _wait(url: str) -> None:
    until_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until_s:
        try:
            httpx.get(f"{url}/v1/models", timeout=5)
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"the target does not answer at {url} within {START_TIMEOUT_S:g} s")
