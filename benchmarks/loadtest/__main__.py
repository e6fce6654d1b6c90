"""`python -m benchmarks.loadtest`: is the instrument right, how much can it do, and what does a closed loop hide?

Needs a C compiler for the exact engine (see `benchmarks.data_path`), and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmarks.data_path.contracts import FakeSpec, Load
from benchmarks.data_path.native import fake_engine, run_load
from benchmarks.loadtest.measure import Run, measure, target, truth
from benchmarks.loadtest.vllm_bench import vllm_bench

TTFT_MS, ITL_MS = 300.0, 50.0
ANSWERS = {"median": 100, "mean": 115, "most": 250}


def accuracy() -> Iterator[Sequence[str]]:
    """Yield measured beside injected quantiles at about 100 open streams."""
    yield "target", "time", "injected ms", "measured ms", "off"
    closed = {"mode": "closed", "shape": {"kind": "constant", "level": 100}}
    with fake_engine(FakeSpec(TTFT_MS, ITL_MS), model="chat") as engine:
        run = measure(f"http://127.0.0.1:{engine.port}", closed, output=ANSWERS, duration="30s", warmup="5s")
    yield from _beside("constant", run, {"ttft": (TTFT_MS, TTFT_MS), "itl": (ITL_MS, ITL_MS)})
    ends = ("--ttft-ms", "200", "600", "--itl-ms", "40", "60")
    with target(*ends) as url:
        run = measure(url, closed, output=ANSWERS, duration="30s", warmup="5s")
        done = truth(url)
    yield from _beside("uniform", run, {"ttft": (400.0, 580.0), "itl": (50.0, 59.0)})
    really = {kind: tuple(1000 * done[f"{kind}_p{q}_s"] for q in (50, 95)) for kind in ("ttft", "itl")}
    yield from _beside("uniform, by the target's own clock", run, {kind: (a, b) for kind, (a, b) in really.items()})


def _beside(name: str, run: Run, injected: Mapping[str, tuple[float, float]]) -> Iterator[Sequence[str]]:
    for kind, (middle, high) in injected.items():
        times = run.figures.total.times[kind]
        for what, wanted, got_s in (("p50", middle, times.p50_s), ("p95", high, times.p95_s)):
            yield (
                name,
                f"{kind.upper()} {what}",
                f"{wanted:.1f}",
                f"{1000 * got_s:.1f}",
                f"{100 * (1000 * got_s / wanted - 1):+.1f} %",
            )


def capacity() -> Iterator[Sequence[str]]:
    """Yield what one worker process measures of ever more streams at 20 tokens a second each."""
    yield "streams", "tokens/s", "TTFT p50/p99 ms", "ITL p50/p99 ms", "longest gap p95 ms", "loop late p99 ms", "CPU %"
    with fake_engine(FakeSpec(TTFT_MS, ITL_MS), model="chat") as engine:
        for level in (100, 250, 500, 650, 800, 1000):
            load = {"mode": "closed", "shape": {"kind": "constant", "level": level}}
            answers = {"median": 150, "mean": 180, "most": 400}
            run = measure(f"http://127.0.0.1:{engine.port}", load, output=answers, duration="15s", warmup="6s", drain="25s")
            seen, times = run.figures, run.figures.total.times
            pairs = (f"{1000 * times[kind].p50_s:.1f}/{1000 * times[kind].p99_s:.1f}" for kind in ("ttft", "itl"))
            longest, lag = 1000 * times["longest_gap"].p95_s, 1000 * seen.lag.p99_s
            yield (
                str(level),
                f"{seen.throughput.tokens:,.0f}",
                *pairs,
                f"{longest:.1f}",
                f"{lag:.1f}",
                f"{100 * run.busy_ratio:.0f}",
            )


def loops() -> Iterator[Sequence[str]]:
    """Yield what an open and a closed loop say of the same overloaded engine: 8 slots, 4 answers a second at most."""
    yield "loop", "asked for/s", "answered/s", "TTFT p50 s", "TTFT p95 s", "whole p95 s"
    asked = (
        ("closed, 8 users", {"mode": "closed", "shape": {"kind": "constant", "level": 8}}),
        ("closed, 16 users", {"mode": "closed", "shape": {"kind": "constant", "level": 16}}),
        ("open, 3/s", {"mode": "open", "shape": {"kind": "constant", "level": 3}}),
        ("open, 5/s", {"mode": "open", "shape": {"kind": "constant", "level": 5}}),
    )
    for name, load in asked:
        with fake_engine(FakeSpec(100.0, 40.0), slots=8, model="chat") as engine:
            run = measure(f"http://127.0.0.1:{engine.port}", load, output={"tokens": 48}, duration="60s", drain="60s")
        seen, times = run.figures, run.figures.total.times
        rates = (f"{seen.throughput.offered:.2f}", f"{seen.throughput.answered:.2f}")
        yield (name, *rates, *(f"{value:.2f}" for value in (times["ttft"].p50_s, times["ttft"].p95_s, times["e2e"].p95_s)))


def agreement() -> Iterator[Sequence[str]]:
    """Yield what the data path's own load client, in C, says of the same engine, beside this instrument."""
    yield "load", "figure", "C client", "manta loadtest", "off"
    loads = (
        ("closed, 50 users", {"mode": "closed", "shape": {"kind": "constant", "level": 50}}, {"concurrency": 50}),
        ("open, 12/s, 32 slots", {"mode": "open", "shape": {"kind": "constant", "level": 12}}, {"rate_per_s": 12.0}),
    )
    for name, load, asked in loads:
        slots = 32 if "slots" in name else 0
        with fake_engine(FakeSpec(TTFT_MS, 30.0), slots=slots, model="chat") as engine:
            seen = run_load(engine, Load(name, duration_s=30.0, warmup_s=5.0, tokens=64, **asked))
            url = f"http://127.0.0.1:{engine.port}"
            run = measure(url, load, output={"tokens": 64}, duration="30s", warmup="5s")
        times = run.figures.total.times
        for figure, theirs, ours in (
            ("TTFT p50 ms", seen.ttft_ms.p50, 1000 * times["ttft"].p50_s),
            ("TTFT p95 ms", seen.ttft_ms.p95, 1000 * times["ttft"].p95_s),
            ("gap p50 ms", seen.itl_ms.p50, 1000 * times["gap"].p50_s),
            ("gap p95 ms", seen.itl_ms.p95, 1000 * times["gap"].p95_s),
            ("whole answer p95 ms", seen.e2e_ms.p95, 1000 * times["e2e"].p95_s),
            ("tokens/s", seen.tokens_per_s, run.figures.throughput.tokens),
        ):
            yield name, figure, f"{theirs:,.1f}", f"{ours:,.1f}", f"{100 * (ours / theirs - 1):+.1f} %"


def peer() -> Iterator[Sequence[str]]:
    """Yield what `vllm bench serve` says of the same engine, beside this instrument."""
    yield "load", "figure", "vllm bench serve", "manta loadtest", "off"
    with fake_engine(FakeSpec(TTFT_MS, 30.0), model="chat") as engine:
        seen = vllm_bench(engine, streams=50, tokens=64, seconds=60.0)
        closed = {"mode": "closed", "shape": {"kind": "constant", "level": 50}}
        run = measure(f"http://127.0.0.1:{engine.port}", closed, output={"tokens": 64}, duration="30s", warmup="5s")
    times = run.figures.total.times
    for figure, theirs, ours in (
        ("TTFT p50 ms", seen.ttft_p50_ms, 1000 * times["ttft"].p50_s),
        ("TTFT p95 ms", seen.ttft_p95_ms, 1000 * times["ttft"].p95_s),
        ("gap p50 ms", seen.gap_p50_ms, 1000 * times["gap"].p50_s),
        ("gap p95 ms", seen.gap_p95_ms, 1000 * times["gap"].p95_s),
        ("whole answer p95 ms", seen.e2e_p95_ms, 1000 * times["e2e"].p95_s),
        ("tokens/s", seen.tokens_per_s, run.figures.throughput.tokens),
    ):
        yield "closed, 50 users", figure, f"{theirs:,.1f}", f"{ours:,.1f}", f"{100 * (ours / theirs - 1):+.1f} %"


STUDIES: Mapping[str, Callable[[], Iterator[Sequence[str]]]] = {
    "accuracy": accuracy,
    "capacity": capacity,
    "loops": loops,
    "agreement": agreement,
    "peer": peer,
}


def main() -> None:
    """Print the tables that are asked for, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=", ".join(STUDIES))
    asked = parser.parse_args().studies or list(STUDIES)
    for name in asked:
        if name not in STUDIES:
            parser.error(f"{name!r} is none of {', '.join(STUDIES)}")
        for number, row in enumerate(STUDIES[name]()):
            sys.stdout.write(f"| {' | '.join(row)} |\n")
            if number == 0:
                sys.stdout.write("|---" + "|--:" * (len(row) - 1) + "|\n")
            sys.stdout.flush()
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
