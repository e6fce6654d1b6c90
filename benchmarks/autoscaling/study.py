"""Study: every contestant on every scenario, seed by seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from autoscaling.simulation.oracle import best_oracle
from autoscaling.simulation.results import REVERSAL_WINDOW_S, Result
from autoscaling.simulation.run import Simulation
from autoscaling.simulation.timeline import reversals
from autoscaling.simulation.trace import Trace
from benchmarks.autoscaling.compare import Run
from benchmarks.autoscaling.contestants import ORACLE, Contestant, contestants
from benchmarks.autoscaling.scenarios import MODEL, Scenario

ATTAINMENT = 0.99  # that the oracle must reach
WINDOWS_S = (0.0, 60.0)


def play(scenario: Scenario, trace: Trace, contestant: Contestant, *, seed: int) -> tuple[Run, Result]:
    """Play one policy, and return its scores."""
    simulation = Simulation(trace, MODEL, scenario.options)
    policy = contestant.policy(scenario, trace)
    simulation.play(policy)
    result = simulation.result(policy)
    after = None
    if (at_s := scenario.change_s) is not None:
        changes = [each for each in simulation.recorder.changes if at_s <= each.time_s <= at_s + REVERSAL_WINDOW_S]
        after = reversals(changes, REVERSAL_WINDOW_S)
    run = Run(
        trace=scenario.name,
        seed=seed,
        family=contestant.family,
        # The oracle is searched anew for each seed, so its settings are no part of its name.
        label=ORACLE if contestant.family == ORACLE else contestant.label,
        settings=contestant.settings,
        attainment=result.attainment,
        replica_s=result.replica_seconds,
        reversals=result.reversals,
        ttft_p99_s=result.service.ttft_s.p99,
        reversals_after_change=after,
    )
    return run, result


def oracle(scenario: Scenario, trace: Trace) -> Contestant:
    """Return the cheapest oracle that reaches ATTAINMENT."""
    found, _ = best_oracle(trace, MODEL, options=scenario.options, attainment=ATTAINMENT, windows_s=WINDOWS_S)
    return Contestant(ORACLE, (("factor", found.factor), ("window_s", found.window_s)))


def cell(scenario: Scenario, seed: int, *, with_frontier: bool, is_quick: bool = False) -> Iterator[Run]:
    """Yield the run of every contestant on one trace."""
    trace = scenario.trace(seed)
    field = contestants(with_frontier=with_frontier, is_quick=is_quick)
    for contestant in (oracle(scenario, trace), *field):
        yield play(scenario, trace, contestant, seed=seed)[0]


def study(
    scenarios: Sequence[Scenario],
    seeds: Sequence[int],
    *,
    known: Sequence[Run] = (),
    tell: Callable[[list[Run]], None],
    is_quick: bool = False,
) -> list[Run]:
    """Play all that is not known yet, seed by seed, and return all runs; ``tell`` gets them after each trace.

    Our own settings are varied in the first seed only.
    """
    runs = list(known)
    done = {(run.trace, run.seed) for run in runs}
    for seed in seeds:
        for scenario in scenarios:
            if (scenario.name, seed) not in done:
                runs += cell(scenario, seed, with_frontier=seed == seeds[0], is_quick=is_quick)
                tell(runs)
    return runs


def save(runs: Sequence[Run], path: Path) -> None:
    """Write runs as JSON."""
    path.write_text(json.dumps({"runs": [asdict(run) for run in runs]}, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> list[Run]:
    """Return what ``save`` wrote, nothing where there is no file."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return [Run(**{**row, "settings": tuple((name, value) for name, value in row["settings"])}) for row in rows]
