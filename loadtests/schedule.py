"""Schedule: when the requests of an open loop are sent, and how long they are. Made from the seed before the run begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoscaling.simulation.trace_csv import read_csv
from loadtests.scenario import Scenario, Shape, ShapeKind
from loadtests.shapes import level_at

GRID_S = 0.05  # between these the level is taken to change evenly
MOST_REQUESTS = 5_000_000


@dataclass(frozen=True, eq=False)
class Schedule:
    """Requests in the order of their sending.

    Attributes:
        at_s: seconds since the measured run began; negative while it warms up.
        prompt_tokens, output_tokens: lengths that a trace gives; None: the mix does.
    """

    at_s: npt.NDArray[np.float64]
    prompt_tokens: npt.NDArray[np.int64] | None = None
    output_tokens: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.at_s)


def schedule(scenario: Scenario, *, folder: Path) -> Schedule:
    """Return the schedule; a trace's file is looked for in ``folder``. Raises ValueError: it cannot be read, or is too long."""
    shape = scenario.load.shape
    if shape.kind is ShapeKind.REPLAY:
        return _replayed(scenario, folder)
    grid_s = np.arange(-scenario.warmup, scenario.duration + GRID_S / 2, GRID_S)
    levels = np.array([level_at(shape, at_s, scenario.duration) for at_s in grid_s[:-1] + GRID_S / 2])
    expected = np.concatenate([[0.0], np.cumsum(levels * GRID_S)])
    if expected[-1] > MOST_REQUESTS:
        raise ValueError(f"load.shape: that are {expected[-1]:,.0f} requests, at most {MOST_REQUESTS:,} are planned")
    marks = _renewals(shape, float(expected[-1]), np.random.default_rng(scenario.seed))
    return Schedule(np.interp(marks, expected, grid_s))


def _renewals(shape: Shape, until: float, chance: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the points of a renewal process of rate 1: stretched by the level, they become the arrivals.

    Gaps are Gamma-distributed; with a deviation of 1 that is a Poisson process, whatever the level does.
    """
    count = int(until + 12 * max(1.0, shape.cv) * until**0.5 + 50)
    if shape.cv == 0:
        points = np.arange(1, count + 1, dtype=np.float64) - 0.5
        return points[points < until]
    form = 1 / shape.cv**2
    points = np.cumsum(chance.gamma(form, 1 / form, size=count))
    return points[points < until]


def _replayed(scenario: Scenario, folder: Path) -> Schedule:
    shape = scenario.load.shape
    trace = read_csv(folder / shape.trace)
    at_s = trace.arrivals_s / shape.speed - scenario.warmup
    kept = at_s < scenario.duration
    return Schedule(at_s[kept], trace.prompt_tokens[kept], trace.output_tokens[kept])
