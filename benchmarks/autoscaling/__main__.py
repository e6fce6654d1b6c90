"""What Manta's autoscaling costs at equal service, beside Ray Serve's default policy and Kubernetes' autoscaler; a simulation.

    python -m benchmarks.autoscaling                                   # five traces, three seeds; 40 minutes of one core
    python -m benchmarks.autoscaling --trace step --seeds 1            # one trace; three minutes
    python -m benchmarks.autoscaling --json runs.json --html runs.html # every run, and a report with plots
    python -m benchmarks.autoscaling --quick                           # everything far too short, to see that it works

What `--json` names is read first, and runs that it holds are not played again: an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.autoscaling.compare import Run
from benchmarks.autoscaling.pictures import page
from benchmarks.autoscaling.scenarios import SCENARIOS, Scenario
from benchmarks.autoscaling.study import load, save, study
from benchmarks.autoscaling.tables import report

FIRST_SEED = 1


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoscaling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trace", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--quick", action="store_true", help="short traces and few settings; the figures mean nothing")
    parser.add_argument("--json", type=Path, help="file of all runs, to write and to go on from")
    parser.add_argument("--html", type=Path, help="report with plots of the first seed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Play, print the tables, and write what is asked for."""
    options = parse(arguments)
    scenarios = [_scenario(name, is_quick=options.quick) for name in options.trace]
    begun_s = time.monotonic()

    def tell(runs: list[Run]) -> None:
        last = runs[-1]
        sys.stderr.write(f"{time.monotonic() - begun_s:.0f} s: {last.trace}, seed {last.seed}, {len(runs)} runs\n")
        if options.json is not None:
            save(runs, options.json)

    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    known = load(options.json) if options.json is not None else []
    runs = study(scenarios, seeds, known=known, tell=tell, is_quick=options.quick)
    asked = [run for run in runs if run.trace in options.trace and run.seed in seeds]
    sys.stdout.write(report(asked))
    if options.html is not None:
        options.html.write_text(page(asked, scenarios, seed=FIRST_SEED), encoding="utf-8")


def _scenario(name: str, *, is_quick: bool) -> Scenario:
    return SCENARIOS[name].quick() if is_quick else SCENARIOS[name]


if __name__ == "__main__":
    main()
