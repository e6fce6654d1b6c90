"""A replica's LatencyModel by measurement, and how well the simulator predicts load that it was not fitted to.

    python -m benchmarks.latency_model --url http://127.0.0.1:8000 --model chat --slots 16            # CPU: five minutes
    python -m benchmarks.latency_model --url ... --model ... --slots 256 --concurrency 1 2 4 8 16 32 64 \\
        --prompts 128 2048 --output-tokens 128 --rounds 5 --seconds 120                               # GPU
    manta simulate --latency latency.json                                                              # use it

The URL is a bare vLLM server's or that of a platform with one replica; a key is read from MANTA_API_KEY. Nothing else may
use the server. `--slots` is the engine's `max_num_seqs`, and no concurrency may be over it, or requests would queue.
First a closed loop at each concurrency and length of prompts, from which the three costs of a step are fitted. Then Poisson
arrivals at `--load` of the capacity that was measured, of prompts evenly between the shortest and longest and answers of
half to one and a half times the length: TTFT, mean ITL and whole answers against what the simulator says of the very same
requests. Limits: one replica, no prefix cache (prompts are random words), and no prompt longer than a step takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import typer

from autoscaling.simulation.calibration import CalibrationError, Fit, Measurement, fit
from benchmarks.latency_model.client import Answer, Client, Prompts, ServerError
from benchmarks.latency_model.measure import Sweep, capacity, sweep
from benchmarks.latency_model.validate import OpenLoop, Row, compare, measured, open_loop, predict

TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Study:
    """What is measured of which server."""

    url: str
    model: str
    slots: int
    plan: Sweep
    load: float  # share of the measured capacity
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that was measured, fitted and compared."""

    measurements: Sequence[Measurement]
    fit: Fit
    open_loop: OpenLoop
    answers: Sequence[Answer]
    rows: Sequence[Row]


async def run(study: Study) -> Outcome:
    """Measure, fit and validate. Raises ServerError and CalibrationError."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        client = Client(session, study.url, model=study.model, api_key=os.environ.get("MANTA_API_KEY"))
        prompts = await Prompts(Random(study.seed)).calibrated(client)  # noqa: S311 - chance that can be repeated
        measurements = []
        async for each in sweep(client, prompts, study.plan):
            typer.echo(progress(each))
            measurements.append(each)
        fitted = fit(measurements)
        tokens = study.plan.output_tokens
        shortest, longest = min(study.plan.prompt_tokens), max(study.plan.prompt_tokens)
        lengths = ((shortest, longest), (max(2, tokens // 2), tokens + tokens // 2))
        load = OpenLoop(study.load * capacity(measurements), study.seconds, *lengths, seed=study.seed)
        typer.echo(f"open loop: {load.rate:.3g} requests/s for {load.seconds:g} s")
        answers = await open_loop(client, prompts, load)
    if not answers:
        raise ServerError(f"no request arrived within {load.seconds:g} s at {load.rate:.3g}/s: raise --seconds")
    rows = compare(predict(answers, fitted, study.slots), measured(answers))
    return Outcome(measurements, fitted, load, answers, rows)


def progress(each: Measurement) -> str:
    """Return one measurement as a line."""
    sizes = f"{each.concurrency:>3} clients, prompts of {each.prompt_tokens:>4}, answers of {each.output_tokens} tokens"
    ttft_ms, itl_ms = (1000 * sum(values) / len(values) for values in (each.ttft_s, each.itl_s))
    return f"{sizes}: TTFT {ttft_ms:.1f} ms, ITL {itl_ms:.2f} ms, mean of {len(each.ttft_s)}"


def report(outcome: Outcome) -> Iterator[str]:
    """Yield the fit and the table."""
    found = outcome.fit
    yield f"step_s {found.step_s:.4g}, step_s_per_sequence {found.step_s_per_sequence:.4g}"
    yield f"prefill_s_per_token {found.prefill_s_per_token:.4g}; besides its steps, a request takes {found.request_s:.4g} s"
    yield f"fitted over measured where furthest apart: {found.worst_ratio:.3f} of {len(found.residuals)} measurements"
    yield f"\n{len(outcome.answers)} requests at {outcome.open_loop.rate:.3g}/s, seed {outcome.open_loop.seed}:\n"
    yield "| time | percentile | predicted ms | measured ms | predicted / measured |"
    yield "|---|--:|--:|--:|--:|"
    for row in outcome.rows:
        times = f"{1000 * row.predicted_s:.1f} | {1000 * row.measured_s:.1f}"
        yield f"| {row.what} | p{row.percentile} | {times} | {row.ratio:.2f} |"


def document(study: Study, outcome: Outcome) -> dict[str, Any]:
    """Return everything as plain data."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "study": asdict(study),
        "fit": asdict(outcome.fit),
        "measurements": [asdict(each) for each in outcome.measurements],
        "open_loop": asdict(outcome.open_loop),
        "answers": [asdict(answer) for answer in outcome.answers],
        "validation": [{**asdict(row), "ratio": row.ratio} for row in outcome.rows],
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency_model", description=lines[0])
    plan = Sweep()
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", required=True)
    parser.add_argument("--slots", type=int, required=True, help="sequences that the engine runs at a time (max_num_seqs)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=list(plan.concurrencies))
    parser.add_argument("--prompts", type=int, nargs="+", default=list(plan.prompt_tokens), help="tokens")
    parser.add_argument("--output-tokens", type=int, default=plan.output_tokens)
    parser.add_argument("--rounds", type=int, default=plan.rounds, help="answers of each client that count")
    parser.add_argument("--load", type=float, default=0.65, help="share of the measured capacity in the open loop")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the open loop")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("latency.json"), help="the fit, for `manta simulate --latency`")
    parser.add_argument("--report", type=Path, help="everything that was measured, as JSON")
    args = parser.parse_args(arguments)
    if max(args.concurrency) > args.slots:
        parser.error(f"--concurrency {max(args.concurrency)} is over --slots {args.slots}: requests would queue")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study; print the table and write the files."""
    args = parse(arguments)
    plan = Sweep(args.concurrency, args.prompts, args.output_tokens, args.rounds)
    study = Study(args.url, args.model, args.slots, plan, args.load, args.seconds, args.seed)
    try:
        outcome = asyncio.run(run(study))
    except (ServerError, CalibrationError) as err:
        typer.echo(f"latency_model: {err}", err=True)
        raise SystemExit(1) from err
    args.out.write_text(outcome.fit.to_json())
    if args.report is not None:
        args.report.write_text(json.dumps(document(study, outcome), indent=2) + "\n")
    typer.echo("\n" + "\n".join(report(outcome)))


if __name__ == "__main__":
    main()
