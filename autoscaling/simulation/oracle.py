"""Oracle: a policy that knows the trace, as the bound that others are measured against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoscaling.observation import Observation
from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.options import SimulationOptions
from autoscaling.simulation.results import Result
from autoscaling.simulation.run import simulate
from autoscaling.simulation.trace import Trace

_GRID_S = 1.0
_LEAST_FACTOR, _MOST_FACTOR = 0.25, 4.0
_HALVINGS = 7  # of the range of factors, which leaves steps of 2 %

Series = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """Requests in service if there were always room, second by second, and the seconds a replica takes to start."""

    requests: Series
    slots: int
    startup_s: float

    @classmethod
    def of(cls, trace: Trace, model: LatencyModel) -> Load:
        """Return the load that a trace makes on replicas whose slots are all busy.

        Such a replica's steps have all its sequences, and it reads one prompt of each slot while a request is served.
        """
        prompts, outputs = trace.prompt_tokens, trace.output_tokens
        prefill_s = model.slots * model.prefill_s_per_token * (float(prompts.mean()) if prompts.size else 0.0)
        ends_s = np.sort(trace.arrivals_s + outputs * model.step_of(model.slots) + prefill_s)
        times_s = np.arange(0.0, trace.duration_s + _GRID_S, _GRID_S)
        # All that were in service at any time within a second: those that end in it are still there.
        arrived = np.searchsorted(trace.arrivals_s, times_s + _GRID_S, side="left")
        ended = np.searchsorted(ends_s, times_s, side="right")
        return cls((arrived - ended).astype(np.float64), model.slots, model.startup_s)

    def ahead(self, window_s: float) -> Series:
        """Return for each second the most load from then until a replica asked for now has served for ``window_s``."""
        seconds = math.ceil((self.startup_s + window_s) / _GRID_S) + 1
        padded = np.concatenate([self.requests, np.zeros(seconds - 1)])
        most: Series = np.lib.stride_tricks.sliding_window_view(padded, seconds).max(axis=1)
        return most


class Oracle:
    """Has ``factor`` times the replicas that the load needs from now until those it asks for now have served a while.

    So it starts replicas before they are needed and drops them as soon as they are not.
    """

    def __init__(self, load: Load, *, factor: float, window_s: float) -> None:
        self.name = "oracle"
        self.factor = factor
        self.window_s = window_s
        self._replicas: list[int] = np.ceil(factor * load.ahead(window_s) / load.slots).astype(int).tolist()

    def wanted(self, seen: Observation) -> int:
        """Return the number for that second; after the trace, that for its last one."""
        return self._replicas[min(int(seen.now_s / _GRID_S), len(self._replicas) - 1)]


def best_oracle(
    trace: Trace,
    model: LatencyModel,
    *,
    options: SimulationOptions | None = None,
    attainment: float = 0.99,
    windows_s: Sequence[float] = (0.0, 15.0, 60.0),
) -> tuple[Oracle, Result]:
    """Return the oracle with the fewest replica-seconds among those that reach ``attainment`` (0..1), and how it does.

    If none does, the one with the highest attainment, and of those the cheapest. It begins with the same replicas as every
    other policy, so give the run a warm-up of at least a start time. Plays the trace 8 times for each of ``windows_s``.
    """
    options = options or SimulationOptions()
    load = Load.of(trace, model)

    def play(factor: float, window_s: float) -> tuple[Oracle, Result]:
        oracle = Oracle(load, factor=factor, window_s=window_s)
        return oracle, simulate(trace, model, oracle, options=options)

    def rank(played: tuple[Oracle, Result]) -> tuple[float, float]:
        result = played[1]
        return min(result.attainment, attainment), -result.replica_seconds

    tried: list[tuple[Oracle, Result]] = []
    for window_s in windows_s:
        least, most = _LEAST_FACTOR, _MOST_FACTOR
        tried.append(play(most, window_s))
        for _ in range(_HALVINGS):
            middle = math.sqrt(least * most)  # of a ratio: half of the range each time
            tried.append(play(middle, window_s))
            if tried[-1][1].attainment >= attainment:
                most = middle
            else:
                least = middle
    return max(tried, key=rank)
