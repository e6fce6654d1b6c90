"""simulate: play a trace against a policy."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from random import Random

from autoscaling.observation import Observation
from autoscaling.simulation.fleet import Fleet
from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.options import Policy, SimulationOptions
from autoscaling.simulation.requests import Requests
from autoscaling.simulation.results import REVERSAL_WINDOW_S, Result, cost, service
from autoscaling.simulation.timeline import Recorder, reversals
from autoscaling.simulation.trace import Trace

_EPSILON_S = 1e-9  # sums of floats that should be equal are not quite


class Simulation:
    """One run, with everything it leaves behind: the requests, the fleet and the recorded timeline."""

    def __init__(self, trace: Trace, model: LatencyModel, options: SimulationOptions) -> None:
        self.requests = Requests(trace)
        self.fleet = Fleet(self.requests, model, ready=options.first_replicas, max_leases=options.max_leases)
        self.recorder = Recorder(self.fleet)
        self._trace = trace
        self._options = options

    def play(self, policy: Policy) -> None:
        """Let the trace happen; then go on until every request has finished, for ``finish_s`` at most."""
        options, fleet = self._options, self.fleet
        path = _MetricsPath(options, fleet.observe())
        ticks, samples = _times(options.interval_s), _times(options.sample_s)
        sample_s = next(samples)
        end_s = self._trace.duration_s
        while True:
            tick_s = next(ticks)
            while sample_s <= min(tick_s, end_s) + _EPSILON_S:
                fleet.advance(sample_s)
                self.recorder.sample()
                sample_s = next(samples)
            if tick_s > end_s and (fleet.finished == len(self.requests) or tick_s > end_s + options.finish_s):
                break
            fleet.advance(tick_s)
            if tick_s > 0:  # at 0 the policy has nothing to see yet
                self._decide(policy, path.seen(fleet.observe()))

    def result(self, policy: Policy) -> Result:
        """Return the scores of what has been played."""
        options, end_s = self._options, self._trace.duration_s
        scored = [each for each in self.recorder.changes if options.warm_up_s <= each.time_s <= end_s]
        return Result(
            policy=policy.name,
            trace=self._trace.name,
            service=service(self.requests, options, end_s=self.fleet.now_s),
            cost=cost(self.fleet.lifespans(), options.warm_up_s, end_s),
            reversals=reversals(scored, REVERSAL_WINDOW_S),
            timeline=self.recorder.timeline(),
        )

    def _decide(self, policy: Policy, seen: Observation) -> None:
        before = self.fleet.target
        after = self._options.clamp(policy.wanted(seen))
        if after != before:
            self.fleet.scale(after)
            self.recorder.changed(before, after)


class _MetricsPath:
    """What the controller knows: the time and its own numbers at once, the load as it was ``delay_s`` ago."""

    def __init__(self, options: SimulationOptions, first: Observation) -> None:
        self._delay_s = options.delay_s
        self._loss = options.report_loss
        self._random = Random(options.seed)  # noqa: S311 - a fault that can be repeated, not a secret
        self._under_way: deque[Observation] = deque()
        self._load = first

    def seen(self, present: Observation) -> Observation:
        """Send off what is so now and return what the controller sees now."""
        self._under_way.append(present)
        is_lost = self._random.random() < self._loss
        while self._under_way and self._under_way[0].now_s <= present.now_s - self._delay_s + _EPSILON_S:
            newest = self._under_way.popleft()
            self._load = self._load if is_lost else newest
        return replace(self._load, now_s=present.now_s, target=present.target, ready=present.ready)


def simulate(trace: Trace, model: LatencyModel, policy: Policy, *, options: SimulationOptions | None = None) -> Result:
    """Return how the policy does on the trace. The policy must be new: it remembers what it saw."""
    simulation = Simulation(trace, model, options or SimulationOptions())
    simulation.play(policy)
    return simulation.result(policy)


def _times(step_s: float) -> Iterator[float]:
    return (step_s * number for number in count())
