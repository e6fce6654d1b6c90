"""`manta tune STATS_HISTORY.csv`: from a load test to the `autoscaling` settings of a replica."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from autoscaling.locust_history import Entry, HistoryError, Plateau, plateaus, read
from autoscaling.tuning import Proposal, Slo, Tuning, TuningError, tune
from serve_app.errors import CommandError


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """How the load test was run."""

    replicas: int = 1
    startup_s: float | None = None
    settle_s: float = 15.0  # Locust's percentiles look back for ten
    name: str | None = None


def run(file: Path, slo: Slo, options: TuneOptions) -> None:
    """Print the levels, what follows from them and the settings. Raises CommandError."""
    _check_finite(slo, options)
    if slo.ttft_s is None and slo.e2e_s is None and slo.itl_s is None:
        raise CommandError("say what requests must keep: --slo-ttft and --slo-itl, or --slo-e2e, in seconds")
    try:
        tuning = tune(_levels(file, options), slo, replicas=options.replicas)
    except (HistoryError, TuningError) as err:
        raise CommandError(f"{file}: {err}") from err
    Console(soft_wrap=True).print(table(tuning))
    for level in tuning.levels:
        typer.echo(f"{level.users} users: {level.reason}")
    for warning in tuning.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if tuning.proposal is None:
        raise CommandError(f"{file}: no settings follow from this run")
    for line in settings(tuning.proposal, options):
        typer.echo(line)


def _check_finite(slo: Slo, options: TuneOptions) -> None:
    """Raise CommandError for an option that is no number of seconds: `min=` lets `inf` and `nan` pass."""
    given = {
        "--slo-ttft": slo.ttft_s,
        "--slo-itl": slo.itl_s,
        "--slo-e2e": slo.e2e_s,
        "--startup-s": options.startup_s,
        "--settle-s": options.settle_s,
    }
    for option, value in given.items():
        if value is not None and not math.isfinite(value):
            raise CommandError(f"{option}: give a finite number of seconds, or leave it out; got {value:g}")


def _levels(file: Path, options: TuneOptions) -> list[Plateau]:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return plateaus(read(lines), settle_s=options.settle_s, name=options.name)
    except OSError as err:
        raise CommandError(f"{file}: {err.strerror}; Locust writes it with `--csv PREFIX --csv-full-history`") from err
    except UnicodeDecodeError as err:
        raise CommandError(f"{file}: not a text file; give the PREFIX_stats_history.csv of a Locust run") from err


def table(tuning: Tuning) -> Table:
    """Return one line per level."""
    made = Table("users", "in progress", "req/s", title="levels, per replica")
    for title in ("TTFT p95/p99 ms", "ITL p95/p99 ms", "whole p95/p99 ms"):
        made.add_column(title, justify="right")
    made.add_column("kept")
    for level in tuning.levels:
        times = (_times(entry) for entry in (level.ttft, level.itl, level.e2e))
        made.add_row(
            str(level.users), f"{level.concurrency:.1f}", f"{level.throughput:.3g}", *times, "yes" if level.is_kept else "no"
        )
    return made


def _times(entry: Entry | None) -> str:
    if entry is None or entry.p95_s is None or entry.p99_s is None:
        return "-"
    return f"{_ms(entry.p95_s)}/{_ms(entry.p99_s)}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}" if seconds >= 0.1 else f"{1000 * seconds:.3g}"


def settings(proposal: Proposal, options: TuneOptions) -> Iterator[str]:
    """Yield the YAML of what is proposed, with the reasons as comments."""
    for reason in proposal.reasons:
        yield f"# {reason}"
    yield "autoscaling:"
    yield f"  slots: {proposal.slots}"
    if proposal.target_queue_depth is not None:
        yield f"  target_queue_depth: {proposal.target_queue_depth}"
    if options.startup_s is not None:
        yield f"  startup_s: {options.startup_s:g}"
