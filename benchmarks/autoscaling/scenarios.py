"""Scenarios: the traffic that policies are compared on, and what is held fixed in all of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from autoscaling.simulation import trace as traces
from autoscaling.simulation.latency import PRESETS
from autoscaling.simulation.options import SimulationOptions
from autoscaling.simulation.trace import Draw, Trace

PRESET = "8b-l40s"
MODEL = PRESETS[PRESET]
MOST_REPLICAS = 60
WARM_UP_S = 600.0
QUICKER = 20.0  # times as short, to see whether everything works


@dataclass(frozen=True)
class Scenario:
    """Traffic of one kind. Times scale with ``duration_s``, so that a short one has the same shape."""

    name: str
    duration_s: float
    initial_replicas: int
    rate_at: Callable[[float], float]  # requests per second that are expected, by the share of the duration that has passed
    draw: Callable[[Scenario, Draw], Trace]
    change: float | None = None  # share of the duration at which the rate jumps
    dispersion: float = 1.0  # variance of arrivals over their mean, in the long run
    warm_up_s: float = WARM_UP_S

    def trace(self, seed: int) -> Trace:
        """Return the requests that a seed makes of it."""
        return self.draw(self, Draw(seed))

    @property
    def change_s(self) -> float | None:
        """The second at which the rate jumps."""
        return None if self.change is None else self.change * self.duration_s

    @property
    def options(self) -> SimulationOptions:
        """Bounds and objectives."""
        return SimulationOptions(max_replicas=MOST_REPLICAS, initial_replicas=self.initial_replicas, warm_up_s=self.warm_up_s)

    def quick(self) -> Scenario:
        """Return a short one of the same shape, good for nothing but tests."""
        return replace(self, duration_s=self.duration_s / QUICKER, warm_up_s=self.warm_up_s / QUICKER)


def _poisson(of: Scenario, draw: Draw) -> Trace:
    return traces.poisson(20.0, of.duration_s, draw=draw)


def _step(of: Scenario, draw: Draw) -> Trace:
    return traces.step(4.0, of.duration_s, of.duration_s / 3, factor=10.0, draw=draw)


def _spike(of: Scenario, draw: Draw) -> Trace:
    return traces.spike(10.0, of.duration_s, (of.duration_s / 4, of.duration_s / 3), factor=4.0, draw=draw)


def _diurnal(of: Scenario, draw: Draw) -> Trace:
    return traces.diurnal(5.0, 50.0, of.duration_s, period_s=of.duration_s, draw=draw)


def _bursty(of: Scenario, draw: Draw) -> Trace:
    return traces.bursty(20.0, of.duration_s, cv=3.0, draw=draw)


_ALL = (
    Scenario("poisson", 3600.0, 5, lambda _: 20.0, _poisson),
    Scenario("step", 3600.0, 2, lambda at: 40.0 if at >= 1 / 3 else 4.0, _step, change=1 / 3),
    Scenario("spike", 7200.0, 3, lambda at: 40.0 if 1 / 4 <= at < 1 / 3 else 10.0, _spike, change=1 / 4),
    Scenario("diurnal", 14400.0, 2, lambda at: 5.0 + 22.5 * (1 - math.cos(2 * math.pi * at)), _diurnal),
    Scenario("bursty", 3600.0, 6, lambda _: 20.0, _bursty, dispersion=9.0),
)
SCENARIOS: Mapping[str, Scenario] = {each.name: each for each in _ALL}
