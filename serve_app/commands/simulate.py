"""`manta simulate [FILE]`: autoscaling policies compared on traces, without a cluster."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from autoscaling.simulation.policy_names import ORACLE, STANDARD, Case, named, play
from autoscaling.simulation.report import render
from autoscaling.simulation.results import Result
from serve_app.commands.config_file import load_or_exit
from serve_app.commands.simulate_setup import Setup, SimulateOptions, cases, refusing, setup
from serve_app.errors import CommandError

COLUMNS = (
    "in\nSLO %",
    "TTFT s\np50/p95/p99",
    "ITL ms\np95",
    "wait s\np99",
    "replica\nhours",
    "of\noracle",
    "rever-\nsals",
    "most",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Who is compared, and what becomes of it."""

    policies: tuple[str, ...] = STANDARD
    attainment: float = 0.99  # what the oracle must reach
    html: Path | None = None
    as_json: bool = False


def run(file: Path | None, asked: SimulateOptions, output: Output) -> None:
    """Print a table for each trace, or JSON; write the report. Raises CommandError that names the option at fault."""
    policies = output.policies or STANDARD
    if output.html is not None:
        _check_place(output.html)
    found = setup(None if file is None else load_or_exit(file, check_files=False), asked)
    all_cases = list(cases(found, asked))
    with refusing("--policy"):
        for text in policies:
            named(text, all_cases[0])  # refused now, not after the work on those before it
    results = _played(all_cases, policies, output.attainment)
    facts = dict(_facts(found, asked, output.attainment))
    if output.as_json:
        typer.echo(json.dumps({"facts": facts, "results": [each.to_dict() for each in results]}))
    else:
        _print(results, facts)
    if output.html is not None:  # last: what was worked out is on the screen, should the file fail
        _write(output.html, render(results, facts))
        if not output.as_json:
            typer.echo(f"report: {output.html}")


def _check_place(html: Path) -> None:
    """Raise CommandError where no report can be written; creates nothing."""
    folder = html.absolute().parent
    if os.path.isdir(html):  # unlike Path's, it never raises
        raise CommandError(f"--html: {html} is a directory; give a file, such as {html / 'report.html'}")
    if not os.path.isdir(folder):
        raise CommandError(f"--html: there is no folder {folder}; make it first")
    if not os.access(html if os.path.exists(html) else folder, os.W_OK):
        raise CommandError(f"--html: {html} may not be written; choose another place")


def _print(results: Sequence[Result], facts: Mapping[str, str]) -> None:
    console = Console(soft_wrap=True)
    for name in dict.fromkeys(each.trace for each in results):
        console.print(table(name, [each for each in results if each.trace == name]))
    typer.echo(f"latency model: {facts['latency model']}")


def table(name: str, results: Sequence[Result]) -> Table:
    """Return one line per policy, narrow enough for a terminal of 80 columns."""
    made = Table(title=f"{name}: {results[0].service.requests:,} requests", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    made.add_column("policy", overflow="fold")
    for heading in COLUMNS:
        made.add_column(heading, justify="right", no_wrap=True)
    oracle = next((each.replica_seconds for each in results if each.policy == ORACLE), math.nan)
    for each in results:
        service = each.service
        made.add_row(
            each.policy,
            f"{100 * each.attainment:.1f}",
            "/".join(_short(value) for value in (service.ttft_s.p50, service.ttft_s.p95, service.ttft_s.p99)),
            _short(1000 * service.itl_s.p95),
            _short(service.queue_s.p99),
            f"{each.replica_seconds / 3600:.2f}",
            _short(each.replica_seconds / oracle if oracle else math.nan),
            str(each.reversals),
            str(each.cost.max_replicas),
        )
    return made


def _short(value: float) -> str:
    """Return three digits, or two behind the point where there are fewer."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _played(all_cases: Sequence[Case], policies: Sequence[str], attainment: float) -> list[Result]:
    """Return the results, with a bar on stderr while they are worked out."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(all_cases) * len(policies))
        for case in all_cases:
            for text in policies:
                progress.update(task, description=f"{case.trace.name}: {text}")
                results.append(play(text, case, attainment=attainment))
                progress.advance(task)
    return results


def _facts(found: Setup, asked: SimulateOptions, attainment: float) -> Iterator[tuple[str, str]]:
    """Yield what a reader should know of the run."""
    model, config = found.model, found.config
    yield "objectives", f"first token within {asked.slo_ttft_s:g} s, {1000 * asked.slo_itl_s:g} ms between tokens in the mean"
    yield "oracle", f"knows the trace; the fewest replica-seconds found that serve {100 * attainment:g} % within the objectives"
    yield "traces", ", ".join((*asked.traces, *_asked_of_traces(asked)))
    yield "latency model", found.latency_from
    per_sequence, per_token = 1000 * model.step_s_per_sequence, 1000 * model.prefill_s_per_token
    more = f"{per_sequence:.3g} ms more per sequence, {per_token:.3g} ms more per prompt token"
    step = f"a step takes {1000 * model.step_s:.4g} ms, {more}"
    yield "replica", f"{model.slots} slots; {step}; {model.startup_s:g} s to start"
    yield "replicas", f"{config.min_replicas} to {config.max_replicas}"
    yield "ours", ", ".join(f"{name} {value:g}" for name, value in _settings(found))
    yield "seed", str(asked.seed)
    yield "Manta", _version()


def _asked_of_traces(asked: SimulateOptions) -> Iterator[str]:
    if asked.rate is not None:
        yield f"rate {asked.rate:g} requests/s"
    if asked.duration_s is not None:
        yield f"duration {asked.duration_s:g} s"


def _version() -> str:
    try:
        return version("manta-serve")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _settings(found: Setup) -> Iterator[tuple[str, float]]:
    for name, value in found.config.model_dump().items():
        if isinstance(value, int | float) and math.isfinite(value) and not name.endswith("_replicas"):
            yield name, value


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as err:
        raise CommandError(f"--html: {path} cannot be written: {(err.strerror or str(err)).lower()}") from err
