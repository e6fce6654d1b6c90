"""Instant: a policy that knows the true rate at every moment, but not the next one. What it misses, no estimate can get."""

from __future__ import annotations

from autoscaling.observation import Observation
from autoscaling.scaler import Need
from autoscaling.simulation.policy_names import service_s
from autoscaling.simulation.trace import Trace
from autoscaling.window import Startup
from benchmarks.autoscaling.scenarios import MODEL, Scenario
from serve_app.config_scaling import AutoscalingConfig

_RULE = AutoscalingConfig()


class Instant:
    """Staffs as Manta does, by Little's law and the square root rule, for a load that it is told instead of measuring it.

    It works off what waits within ``drain_s``, and neither delays nor settles: it has no noise to fear.
    """

    def __init__(self, scenario: Scenario, trace: Trace, *, drain_s: float) -> None:
        self.name = "instant"
        self._scenario = scenario
        self._service_s = service_s(trace, MODEL)
        self._drain_s = drain_s
        self._startup = Startup()

    def wanted(self, seen: Observation) -> int:
        """Return the replicas for the rate of this moment, and for what waits beyond the target."""
        self._startup.see(seen.now_s, seen.target, seen.ready)
        rate = self._scenario.rate_at(seen.now_s / self._scenario.duration_s)
        load = rate * self._service_s
        spread = (load * (1 + self._scenario.dispersion) / 2) ** 0.5
        need = Need(load, spread, self._for_queue(seen, rate), MODEL.slots, _RULE.target_utilization)
        return need.replicas(_RULE.headroom)

    def _for_queue(self, seen: Observation, rate: float) -> float:
        if seen.queue <= _RULE.target_queue_depth * max(seen.ready, 1):
            return 0.0
        served_per_s = seen.ready * MODEL.slots / self._service_s
        more = max(0.0, rate - served_per_s) * self._startup.remaining_s(seen.now_s, MODEL.startup_s)
        return (seen.queue + more) * self._service_s / self._drain_s
