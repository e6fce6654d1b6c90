"""Study: what the gates say of canaries whose fault is known, many times over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.canary_detection.traffic import BaselineTrace, CanaryTrace, Service, baseline_trace
from serve_app.config_rollouts import GatesConfig
from serve_app.rollout.verdict import Analysis, Verdict

GATES = GatesConfig(ttft_p95_ratio=1.5, ttft_p50_ratio=1.5, itl_p95_ratio=1.5)
WEIGHT = 0.05
SECONDS = 600
RATES = (1.0, 10.0, 50.0, 500.0)  # requests a second of both variants together
SIGMAS = (0.5, 1.0)
BASELINES = 10  # traces of a baseline that the runs of a cell take turns with
FAULTS: dict[str, dict[str, float]] = {
    "none": {},
    "5xx on 5 %": {"error_rate": 0.05},
    "5xx on 10 %": {"error_rate": 0.1},
    "5xx on 30 %": {"error_rate": 0.3},
    "TTFT x1.5": {"ttft_ratio": 1.5},
    "TTFT x2": {"ttft_ratio": 2.0},
    "TTFT x3": {"ttft_ratio": 3.0},
    "ITL x2": {"itl_ratio": 2.0},
    "all hang": {"hang_rate": 1.0},
    "30 % hang": {"hang_rate": 0.3},
}
DEPENDS_ON_SIGMA = ("none", "TTFT x1.5", "TTFT x2", "TTFT x3")


@dataclass(frozen=True)
class Cell:
    """What happened to one fault at one load."""

    fault: str
    rate_per_s: float
    sigma: float
    runs: int
    rolled_back: float  # shares of the runs, at the end
    promoted: float
    waiting: float
    blamed: dict[str, int]  # roll-backs by the gate that said so first
    first_promoted_s: float | None  # median of when a run could first have gone on
    p50_s: float | None  # time to the roll-back, over those rolled back
    p90_s: float | None
    p99_s: float | None


@dataclass(frozen=True)
class Run:
    """How one canary ended."""

    verdict: Verdict
    gate: str | None
    detected_s: int | None
    promoted_s: int | None


def simulate(canary: CanaryTrace, baseline: BaselineTrace, *, seconds: int = SECONDS, gates: GatesConfig = GATES) -> Run:
    """Look once a second until the canary is rolled back or the time is over."""
    analysis, promoted_s, said = Analysis(gates), None, None
    for number in range(seconds):
        said = analysis.observe(*canary.second(number), baseline.second(number), now_s=float(number))
        if said.verdict is Verdict.ROLL_BACK:
            gate = next(r.gate for r in said.readings if r.verdict is Verdict.ROLL_BACK)
            return Run(said.verdict, gate, number + 1, promoted_s)
        if promoted_s is None and said.verdict is Verdict.PROMOTE:
            promoted_s = number + 1
    return Run(said.verdict if said else Verdict.WAIT, None, None, promoted_s)


def baselines(rate_per_s: float, sigma: float, *, seconds: int, seed: int) -> list[BaselineTrace]:
    """Return the traces that the cells of a load and a spread share."""
    rng = np.random.default_rng([seed, int(rate_per_s), int(10 * sigma)])
    rate = (1 - WEIGHT) * rate_per_s
    return [baseline_trace(Service(sigma), rate, seconds=seconds, rng=rng) for _ in range(BASELINES)]


def study_cell(fault: str, load: tuple[float, float], traces: Sequence[BaselineTrace], *, runs: int, seed: int) -> Cell:
    """Return what becomes of a fault at a load (requests a second, sigma)."""
    rate_per_s, sigma = load
    seconds = len(traces[0].open_first)
    rng = np.random.default_rng([seed, int(rate_per_s), int(10 * sigma), list(FAULTS).index(fault)])
    service = Service(sigma, **FAULTS[fault])
    made = [
        simulate(CanaryTrace(service, WEIGHT * rate_per_s, seconds=seconds, rng=rng), traces[i % len(traces)], seconds=seconds)
        for i in range(runs)
    ]
    return summary(fault, load, made)


def summary(fault: str, load: tuple[float, float], made: Sequence[Run]) -> Cell:
    """Return the shares and percentiles of some runs."""
    detected = [run.detected_s for run in made if run.detected_s is not None]
    promoted = [run.promoted_s for run in made if run.promoted_s is not None]
    gates = [run.gate for run in made if run.gate is not None]
    p50, p90, p99 = (float(np.percentile(detected, q)) if detected else None for q in (50, 90, 99))
    return Cell(
        fault,
        *load,
        runs=len(made),
        rolled_back=_share(made, Verdict.ROLL_BACK),
        promoted=_share(made, Verdict.PROMOTE),
        waiting=_share(made, Verdict.WAIT),
        blamed={gate: gates.count(gate) for gate in sorted(set(gates))},
        first_promoted_s=float(np.median(promoted)) if promoted else None,
        p50_s=p50,
        p90_s=p90,
        p99_s=p99,
    )


def _share(made: Sequence[Run], verdict: Verdict) -> float:
    return sum(run.verdict is verdict for run in made) / len(made)


def study(
    runs: int, seed: int, *, rates: Sequence[float] = RATES, seconds: int = SECONDS, tell: Callable[[Cell], None]
) -> list[Cell]:
    """Return every cell, and tell of each when it is there."""
    cells = []
    for rate_per_s in rates:
        for sigma in SIGMAS:
            traces = baselines(rate_per_s, sigma, seconds=seconds, seed=seed)
            for fault in FAULTS if sigma == SIGMAS[0] else DEPENDS_ON_SIGMA:
                cells.append(study_cell(fault, (rate_per_s, sigma), traces, runs=runs, seed=seed))
                tell(cells[-1])
    return cells


def document(cells: Sequence[Cell], *, runs: int, seed: int) -> dict[str, object]:
    """Return the study as JSON."""
    return {
        "runs": runs,
        "seed": seed,
        "seconds": SECONDS,
        "weight": WEIGHT,
        "gates": GATES.model_dump(mode="json"),
        "cells": [asdict(cell) for cell in cells],
    }
