"""`python -m benchmarks.metrics`: what its metrics cost a Router at full load, in CPU, beside one that keeps none.

Both stand before the same engine in turn, round by round, and get as many streams at a time as keep them busy. The one
with metrics is scraped every five seconds, which is as often as it would export to Ray.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Annotated

import httpx
import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.data_path.contracts import Endpoint, FakeSpec, Load
from benchmarks.data_path.native import fake_engine, run_load
from serve_app.cluster import free_ports

SCRAPE_S = 5.0
MODEL = "fake"


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1)] = 10,
    duration: Annotated[float, typer.Option(min=1, help="Seconds of each load.")] = 10.0,
    streams: Annotated[int, typer.Option(min=1, help="At a time.")] = 64,
    tokens: Annotated[int, typer.Option(min=2, help="Of each answer.")] = 64,
    limit: Annotated[float, typer.Option(help="Most that metrics may cost, of the Router's CPU; 1 is all of it.")] = 0.02,
) -> None:
    """Compare a Router's CPU a token with and without metrics; end with 1 where they cost more than the limit."""
    load = Load(f"c={streams}", duration_s=duration, concurrency=streams, tokens=tokens)
    costs = []
    with fake_engine(FakeSpec(ttft_ms=1.0, itl_ms=1.0)) as engine:
        for number in range(rounds):
            first = bool(number % 2)
            made = {is_observed: cpu_us_per_token(engine, load, is_observed=is_observed) for is_observed in (first, not first)}
            costs.append(made)
            Console(stderr=True).print(f"round {number + 1}: {made[False]:.2f} us a token without, {made[True]:.2f} with")
    ratios = sorted(made[True] / made[False] - 1 for made in costs)
    middle = statistics.median(ratios)
    table = Table("", "us of CPU a token", title=f"{streams} streams of {tokens} tokens, {rounds} rounds")
    for is_observed, name in ((False, "without metrics"), (True, "with metrics")):
        table.add_row(name, f"{statistics.median(made[is_observed] for made in costs):.2f}")
    table.add_row("metrics cost", f"{middle:.1%} (lowest {ratios[0]:.1%}, highest {ratios[-1]:.1%})")
    Console().print(table)
    raise typer.Exit(int(middle > limit))


def cpu_us_per_token(engine: Endpoint, load: Load, *, is_observed: bool) -> float:
    """Return what a Router of its own spends on each token of a load."""
    with router(engine, is_observed=is_observed) as endpoint:
        run_load(endpoint, Load("warm-up", duration_s=2.0, warmup_s=1.0, concurrency=8, tokens=load.tokens))
        process = psutil.Process(endpoint.pids["router"][0])
        before = process.cpu_times()
        with scraped(endpoint) if is_observed else contextlib.nullcontext():
            measured = run_load(endpoint, load)
        after = process.cpu_times()
    if measured.errors:
        raise typer.BadParameter(f"requests failed: {dict(measured.errors)}")
    spent_s = after.user + after.system - before.user - before.system
    # The warm-up's tokens are not counted, its CPU is; in either Router alike.
    return spent_s / (measured.tokens_per_s * load.duration_s) * 1e6


@contextlib.contextmanager
def router(engine: Endpoint, *, is_observed: bool) -> Iterator[Endpoint]:
    """Run a Router before the engine."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.data_path.router_alone", "--engine", f"{engine.host}:{engine.port}"]
    process = subprocess.Popen([*command, "--model", MODEL, "--port", str(port), *["--observed"] * is_observed])  # noqa: S603
    try:
        wait_for(port, process)
        yield Endpoint("127.0.0.1", port, MODEL, pids={"router": [process.pid]})
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def scraped(endpoint: Endpoint) -> Iterator[None]:
    """Scrape a Router now and then."""
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(SCRAPE_S):
            httpx.get(f"http://{endpoint.host}:{endpoint.port}/metrics", timeout=30).raise_for_status()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when the Router answers. Raises RuntimeError when it ends instead, or takes too long."""
    for _ in range(600):
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError("the Router does not start")


if __name__ == "__main__":
    typer.run(main)
