"""Pictures of a study: the policies that its tables name, played once more for their course."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from autoscaling.simulation.report import render
from autoscaling.simulation.results import Result
from benchmarks.autoscaling import compare
from benchmarks.autoscaling.compare import Run
from benchmarks.autoscaling.contestants import Contestant
from benchmarks.autoscaling.scenarios import MODEL, PRESET, Scenario
from benchmarks.autoscaling.study import play
from benchmarks.autoscaling.tables import notable


def page(runs: Sequence[Run], scenarios: Sequence[Scenario], *, seed: int) -> str:
    """Return a report as HTML: every trace with a seed, the policies of the tables."""
    results = [result for scenario in scenarios for result in _results(runs, scenario, seed)]
    options = scenarios[0].options
    facts = {
        "replicas": f"preset {PRESET}: {MODEL.slots} slots, {MODEL.startup_s:g} s to start; 1 to {options.max_replicas}",
        "objectives": f"first token within {options.slo_ttft_s:g} s, {options.slo_itl_s:g} s between tokens in the mean",
        "seed": str(seed),
    }
    return render(results, facts, title="Manta's autoscaling beside Ray Serve's and Kubernetes'")


def _results(runs: Sequence[Run], scenario: Scenario, seed: int) -> Iterator[Result]:
    trace = scenario.trace(seed)
    mine = {run.label: run for run in runs if run.trace == scenario.name and run.seed == seed}
    for score in notable(compare.scores(runs)[scenario.name]):
        if (run := mine.get(score.label)) is not None:
            _, result = play(scenario, trace, Contestant(run.family, run.settings), seed=seed)
            yield replace(result, policy=run.label)
