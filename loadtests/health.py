"""Health: whether a run can be trusted: what the load generator itself did to the figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loadtests.figures import Figures
from loadtests.gates import span
from loadtests.scenario import Mode, Scenario

MOST_LAG_S = 0.02
MOST_LATE_S = 0.05
MOST_BUSY = 0.85
MOST_COALESCED = 0.05


def warnings(scenario: Scenario, run: Mapping[str, Any], seen: Figures) -> tuple[str, ...]:
    """Return what a reader must know before the figures are believed; empty: nothing."""
    return tuple(_warnings(scenario, run, seen))


def _warnings(scenario: Scenario, run: Mapping[str, Any], seen: Figures) -> Iterator[str]:
    if run["silent_workers"]:
        yield f"{run['silent_workers']} of {run['workers']} workers gave no last report: what they saw since is missing"
    if seen.lag.p99_s > MOST_LAG_S:
        yield f"the load generator was late itself by up to {span(seen.lag.p99_s)} (p99): use more workers, or another machine"
    busiest = max((busy_s / seen.measured_s for busy_s in run["busy_s"].values()), default=0.0)
    if busiest > MOST_BUSY:
        yield f"a worker process used {100 * busiest:.0f} % of a CPU: use more workers"
    late = seen.total.times["late"]
    if scenario.load.mode is Mode.OPEN and late.p99_s > MOST_LATE_S:
        yield f"requests were sent up to {span(late.p99_s)} late (p99); the figures count that as waiting"
    pieces = seen.total.totals.get("pieces", 0)
    if pieces and seen.total.totals["coalesced"] / pieces > MOST_COALESCED:
        share = 100 * seen.total.totals["coalesced"] / pieces
        yield f"{share:.0f} % of the pieces came in one read with the one before: gaps are coarser than the engine's"
    if scenario.load.mode is Mode.CLOSED:
        yield (
            "closed loop: users who wait send less, so what many independent clients would have waited in a queue is not in "
            "these figures; an open loop has it"
        )
    if run["why_no_platform"]:
        yield f"no queue depth and replicas: {run['why_no_platform']}"
