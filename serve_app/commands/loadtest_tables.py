"""What `manta loadtest` shows in a terminal."""

from __future__ import annotations

import math

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadtests.figures import Figures, Part, ShareFigures
from loadtests.gates import State, span
from loadtests.outcomes import Outcome
from loadtests.result import Result
from loadtests.runner import Progress

MARKS = {State.PASSED: "ok    ", State.FAILED: "FAILED", State.UNDECIDED: "?     "}
MOST_MESSAGES = 5


def progress(seen: Progress) -> str:
    """Return how far a run is, in a few words."""
    total = sum(seen.outcomes.values())
    failed = total - seen.outcomes.get(Outcome.OK, 0)
    return f"{seen.open} open, {total:,} done, {failed:,} failed, {seen.tokens:,} tokens"


def show(result: Result, console: Console) -> None:
    """Print the figures, what went wrong, and what the gates found."""
    seen = result.figures
    console.print(parts(seen))
    console.print(throughput(seen))
    if seen.stages:
        console.print(stages(seen))
    for line in (*failures(seen.total), *(_share(share) for share in seen.shares)):
        typer.echo(line)
    for warning in result.warnings:
        typer.echo(f"note: {warning}", err=True)
    for finding in result.found:
        typer.echo(f"{MARKS[finding.state]} {finding.name}: {finding.reason}")
    failed = [finding.name for finding in result.found if finding.state is State.FAILED]
    if result.found:
        typer.echo(f"verdict: {result.verdict}" + (f" ({', '.join(failed)})" if failed else ""))


def parts(seen: Figures) -> Table:
    """Return a line for each part of the mix, narrow enough for a terminal of 80 columns."""
    made = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    made.add_column("part", overflow="fold")
    for heading in ("requests", "failed\n%", "TTFT\np50/p95/p99", "ITL\np50/p95/p99", "whole answer\np50/p95"):
        made.add_column(heading, justify="right", no_wrap=True)
    rows = seen.entries if len(seen.entries) == 1 else (*seen.entries, seen.total)
    for part in rows:
        made.add_row(part.name, f"{part.requests:,}", _percent(part.error_rate), *_times(part))
    return made


def stages(seen: Figures) -> Table:
    """Return a line for each level of the load."""
    made = Table("level", "answered/s", "failed %", "TTFT p95", "ITL p95", "", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for each in seen.stages:
        times = each.part.times
        marked = "<- knee" if each.is_knee else ""
        rate = f"{each.requests_per_s:.3g}"
        made.add_row(
            each.part.name, rate, _percent(each.part.error_rate), span(times["ttft"].p95_s), span(times["itl"].p95_s), marked
        )
    return made


def throughput(seen: Figures) -> str:
    """Return what came and went each second."""
    rate = seen.throughput
    return (
        f"{rate.answered:.4g} of {rate.offered:.4g} requests/s answered, {rate.tokens:,.4g} tokens/s, {seen.measured_s:.4g} s"
    )


def failures(part: Part) -> list[str]:
    """Return what went wrong, the most frequent first."""
    counted = [f"{outcome}: {count:,}" for outcome, count in part.outcomes.items() if outcome != Outcome.OK]
    if not counted:
        return []
    said = [f"  {count:,} x {message}" for message, count in list(part.messages.items())[:MOST_MESSAGES]]
    limited = part.totals.get("limited", 0)
    more = [f"  {limited:,} more were answered with 429, and asked again"] if limited else []
    return [f"not ok: {', '.join(counted)}", *said, *more]


def _share(share: ShareFigures) -> str:
    low, high = share.interval
    weight = "" if share.weight is None else f", weight {100 * share.weight:.3g} %"
    conversations = f"{100 * share.share:.3g} % of conversations (95 %: {100 * low:.3g} to {100 * high:.3g} %{weight})"
    return f"{share.model}/{share.variant}: {conversations}"


def _times(part: Part) -> tuple[str, str, str]:
    made = []
    for kind, quantiles in (
        ("ttft", ("p50_s", "p95_s", "p99_s")),
        ("itl", ("p50_s", "p95_s", "p99_s")),
        ("e2e", ("p50_s", "p95_s")),
    ):
        values = [getattr(part.times[kind], quantile) for quantile in quantiles]
        made.append("-" if math.isnan(values[0]) else "/".join(span(value).replace(" ", "") for value in values))
    return made[0], made[1], made[2]


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.3g}"
