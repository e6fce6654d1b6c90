"""What a whole request costs a Router that knows 2 replicas, and one that knows 2,000.

    python -m benchmarks.decision.requests

The gateway runs under bare uvicorn in a process of its own; its CPU time (user and system) is counted over thousands of
requests, in interleaved rounds. Every replica is the same native fake engine at a loopback address of its own, so
connections are many as they would be. Prompts are all different: each has its place on the ring.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import typer

from benchmarks.data_path.contracts import Endpoint, Load
from benchmarks.data_path.native import build, run_load
from serve_app.cluster import free_ports

SIZES = (2, 2_000)
LOAD = Load("requests", duration_s=8.0, warmup_s=4.0, concurrency=16, tokens=1, stream=False)
PROMPTS = 20_000


@contextmanager
def engine() -> Iterator[int]:
    """Run the fake engine on every loopback address; yield its port."""
    command = [str(build("engine")), "--host=0.0.0.0", "--ttft-ms=2", "--itl-ms=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            yield int((process.stdout.readline() if process.stdout else "").split()[1])
        finally:
            process.terminate()


@contextmanager
def router(engine_port: int, endpoints: int) -> Iterator[tuple[Endpoint, psutil.Process]]:
    """Run the Router alone in front of so many addresses of the engine."""
    port = free_ports(1)[0]
    module = [sys.executable, "-m", "benchmarks.data_path.router_alone"]
    command = [*module, f"--engine=127.0.0.1:{engine_port}", f"--endpoints={endpoints}", f"--port={port}"]
    with subprocess.Popen(command) as process:  # noqa: S603
        try:
            _wait(port)
            yield Endpoint("127.0.0.1", port, "fake"), psutil.Process(process.pid)
        finally:
            process.terminate()


def _wait(port: int) -> None:
    for _ in range(200):
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5)
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError("the Router alone did not start")


def cost_us(endpoint: Endpoint, process: psutil.Process, prompts: Path) -> float:
    """Return the Router's CPU time per request, in microseconds, the warm-up's requests included."""
    before = process.cpu_times()
    seen = run_load(endpoint, LOAD, extra=["--bodies-file", str(prompts)])
    after = process.cpu_times()
    if seen.errors:
        raise RuntimeError(f"the load had errors: {dict(seen.errors)}")
    requests = seen.requests * (LOAD.duration_s + LOAD.warmup_s) / LOAD.duration_s
    return 1e6 * (after.user + after.system - before.user - before.system) / requests


def report(found: Mapping[int, list[float]]) -> str:
    """Return the medians and the ratio of each round's pair."""
    lines = [f"{size:>6} endpoints: {statistics.median(costs):7.1f} us CPU per request" for size, costs in found.items()]
    few, many = (found[size] for size in SIZES)
    ratios = sorted(b / a for a, b in zip(few, many, strict=True))
    lines.append(
        f"ratio, median of {len(ratios)} rounds: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    )
    return "\n".join(lines)


def main(rounds: Annotated[int, typer.Option(min=1)] = 5) -> None:
    """Measure and print."""
    found: dict[int, list[float]] = {size: [] for size in SIZES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        prompts = folder / "prompts.jsonl"
        prompts.write_text("\n".join(map(_body, range(PROMPTS))))
        port = stack.enter_context(engine())
        routers = {size: stack.enter_context(router(port, size)) for size in SIZES}
        for number in range(rounds):
            for size in SIZES if number % 2 else reversed(SIZES):
                found[size].append(cost_us(*routers[size], prompts))
    typer.echo(report(found))


def _body(number: int) -> str:
    messages = [{"role": "user", "content": f"Question {number}: how much does a request cost?"}]
    return json.dumps({"model": "fake", "messages": messages, "max_tokens": 1, "stream": False})


if __name__ == "__main__":
    typer.run(main)
