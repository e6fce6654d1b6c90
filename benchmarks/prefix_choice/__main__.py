"""What prefix-aware replica choice is worth: `python -m benchmarks.prefix_choice --engine fake|vllm`.

Every policy gets the same kind of load in each round, in another order, with documents that no cache has seen: more of
them than one engine's cache can hold, fewer than all together can.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.data_path.contracts import Endpoint, FakeSpec, Load, Measurement
from benchmarks.data_path.native import fake_engine, run_load
from benchmarks.data_path.systems.manta import Manta, Running
from benchmarks.data_path.vllm_engine import ARGS, vllm_engine
from benchmarks.prefix_choice.engines import Watch
from benchmarks.prefix_choice.workload import bodies, documents, write

POLICIES = ("random", "least_loaded", "prefix")
SETTLE_S = 3.0  # Routers follow a new document within a second


@dataclass(frozen=True, slots=True)
class Study:
    """Documents of ``chars`` characters, ``per_engine`` of them in one engine's cache."""

    kind: str
    engines: int
    documents: int
    chars: int
    concurrency: int
    tokens: int
    warmup_s: float
    duration_s: float


# An engine's cache holds a little more than its share of the documents, and little more than a sixth or a half of all.
STUDIES = {
    "fake": Study("fake", 8, 96, 6_000, 64, 16, 10.0, 20.0),
    "vllm": Study("vllm", 2, 32, 4_500, 4, 4, 40.0, 60.0),
}
FAKE_CACHE_DOCUMENTS = 18
PREFILL_US_PER_CHAR = 50.0
VLLM_BLOCKS = 190  # KV blocks of 128 tokens: about 17 documents


@contextmanager
def started(study: Study) -> Iterator[list[Endpoint]]:
    """Start the engines, each with its own cache."""
    with ExitStack() as stack:
        if study.kind == "vllm":
            args = {**ARGS, "num_gpu_blocks_override": VLLM_BLOCKS, "max_num_seqs": 16}
            cores = os.cpu_count() or 1
            one_each = [{"VLLM_CPU_OMP_THREADS_BIND": str(i % cores)} for i in range(study.engines)]
            with ThreadPoolExecutor() as pool:  # each takes minutes to start
                found = pool.map(stack.enter_context, [vllm_engine(args, env=env) for env in one_each])
                running = [engine.endpoint for engine in found]
            yield running
            return
        engines: list[Endpoint] = []
        cache_chars = FAKE_CACHE_DOCUMENTS * study.chars
        for _ in range(study.engines):
            engine = fake_engine(FakeSpec(), slots=32, prefill_us_per_char=PREFILL_US_PER_CHAR, cache_chars=cache_chars)
            engines.append(stack.enter_context(engine))
        yield engines


def measure(study: Study, manta: Running, engines: Sequence[Endpoint], *, seed: int) -> tuple[Measurement, Watch]:
    """Put the load on Manta with documents of its own."""
    texts = documents(study.documents, study.chars, seed=seed)
    load = Load("prefixes", study.duration_s, study.warmup_s, concurrency=study.concurrency, tokens=study.tokens, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        lines = bodies(texts, model=manta.endpoint.model, requests=5_000, tokens=study.tokens, seed=seed)
        path = write(Path(folder) / "bodies.jsonl", lines)
        with Watch(study.kind, engines) as watch:
            seen = run_load(manta.endpoint, load, extra=["--bodies-file", str(path), "--any-length"])
    watch.samples = watch.samples[int(len(watch.samples) * study.warmup_s / (study.warmup_s + study.duration_s)) :]
    return seen, watch


def run(study: Study, *, rounds: int, out: Path) -> list[dict[str, object]]:
    """Run every policy in every round; write each result as soon as it is there."""
    found: list[dict[str, object]] = []
    with started(study) as engines, Manta().platform(urls_of(engines), engines[0], kind=study.kind) as manta:
        for number in range(rounds):
            for place in range(len(POLICIES)):
                policy = POLICIES[(number + place) % len(POLICIES)]
                manta.set_router({"replica_choice": policy})
                time.sleep(SETTLE_S)
                seen, watch = measure(study, manta, engines, seed=1 + number * len(POLICIES) + place)
                result = {
                    "round": number,
                    "policy": policy,
                    "ttft_ms": asdict(seen.ttft_ms),
                    "requests": seen.requests,
                    "errors": dict(seen.errors),
                    "hit_ratio": watch.hit_ratio(),
                    "imbalance": watch.imbalance(),
                }
                found.append(result)
                typer.echo(json.dumps(result))
                with out.open("a") as file:
                    file.write(json.dumps({**asdict(study), **result}) + "\n")
    return found


def urls_of(engines: Sequence[Endpoint]) -> list[str]:
    """Return the engines' addresses."""
    return [f"http://{engine.host}:{engine.port}" for engine in engines]


def table(found: Sequence[dict[str, object]]) -> str:
    """Return medians over the rounds as a Markdown table, with each policy's TTFT against random's of the same round."""
    lines = [
        "| policy | TTFT p50, ms | TTFT mean, ms | mean against random | cache hits | max / mean load | requests | errors |"
    ]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    base = {row["round"]: _ttft(row, "mean") for row in found if row["policy"] == "random"}
    for policy in POLICIES:
        rows = [row for row in found if row["policy"] == policy]
        ratio = statistics.median(_ttft(row, "mean") / base[row["round"]] for row in rows)
        p50, mean = (statistics.median(_ttft(row, key) for row in rows) for key in ("p50", "mean"))
        hits, imbalance = (statistics.median(float(str(row[key])) for row in rows) for key in ("hit_ratio", "imbalance"))
        requests = sum(int(str(row["requests"])) for row in rows)
        errors = sum(sum(row["errors"].values()) for row in rows if isinstance(row["errors"], dict))
        lines.append(
            f"| {policy} | {p50:.0f} | {mean:.0f} | {ratio:.2f} | {hits:.0%} | {imbalance:.2f} | {requests} | {errors} |"
        )
    return "\n".join(lines)


def _ttft(row: dict[str, object], key: str) -> float:
    ttft = row["ttft_ms"]
    return float(ttft[key]) if isinstance(ttft, dict) else float("nan")


def main(
    engine: Annotated[str, typer.Option(help="fake: 8 simulated engines; vllm: 2 real ones")] = "fake",
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    out: Annotated[Path, typer.Option(help="raw results, one JSON line each")] = Path("benchmarks/results/prefix.jsonl"),
) -> None:
    """Compare the policies and print a table."""
    if engine not in STUDIES:
        raise typer.BadParameter(f"--engine must be one of {', '.join(STUDIES)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    typer.echo(table(run(STUDIES[engine], rounds=rounds, out=out)))


if __name__ == "__main__":
    typer.run(main)
