"""Timeline: the course of a run, in even steps, for plots; and the changes of its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from autoscaling.simulation.fleet import Fleet

Series = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Arrays of equal length, one point per sample. A decision of the same moment shows at the next point."""

    time_s: Series
    target: Series  # replicas asked for
    ready: Series  # replicas that serve
    alive: Series  # replicas that cost: starting, ready, draining
    queue: Series  # requests that wait, in replicas or for one
    running: Series
    arrivals_per_s: Series  # since the point before

    def to_dict(self) -> dict[str, list[float]]:
        """Return the arrays as lists, by name."""
        return {each.name: getattr(self, each.name).tolist() for each in fields(self)}


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the target."""

    time_s: float
    before: int
    after: int

    @property
    def is_up(self) -> bool:
        """Whether replicas were added."""
        return self.after > self.before


class Recorder:
    """Takes down the course of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.changes: list[Change] = []
        self._fleet = fleet
        self._rows: list[tuple[float, ...]] = []
        self._arrived = 0

    def sample(self) -> None:
        """Add a point for the present moment."""
        fleet = self._fleet
        seen = fleet.observe()
        passed_s = fleet.now_s - self._rows[-1][0] if self._rows else 0.0
        rate = (fleet.arrived - self._arrived) / passed_s if passed_s else 0.0
        self._arrived = fleet.arrived
        self._rows.append((fleet.now_s, fleet.target, fleet.ready, fleet.alive, seen.queue, seen.running, rate))

    def changed(self, before: int, after: int) -> None:
        """Note that the target has just changed."""
        self.changes.append(Change(self._fleet.now_s, before, after))

    def timeline(self) -> Timeline:
        """Return all points up to now."""
        return Timeline(*np.asarray(self._rows, dtype=np.float64).reshape(-1, len(fields(Timeline))).T)


def reversals(changes: Sequence[Change], window_s: float) -> int:
    """Return how often the target turned round: changed against the change before it, in less than ``window_s`` seconds."""
    return sum(now.is_up != then.is_up and then.time_s - now.time_s < window_s for now, then in pairwise(changes))
