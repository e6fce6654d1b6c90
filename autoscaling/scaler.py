"""Scaler: how many replicas a deployment needs, from what is seen of it. Pure: no clock, no I/O, no Ray.

The load is the number of requests in service that the present arrivals amount to (Little's law), a start time ahead.
Replicas are sized for it by the square-root staffing rule (Halfin and Whitt 1981, https://doi.org/10.1287/opre.29.3.567):
a constant number of standard deviations is kept free, so that many replicas need a smaller share of spare ones than few.
Queue depth corrects it: what waits beyond the target is to be worked off soon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from autoscaling.curve import ServiceCurve
from autoscaling.flow import Flow
from autoscaling.observation import Decision, Observation
from autoscaling.window import Extreme, Startup
from serve_app.config_scaling import AutoscalingConfig, StageScalingConfig

CALM = 1.0  # standard deviations more that must be free before replicas are removed: what fits by a hair is kept
LEAST_STEP = 4
MOST_GROWTH = 2.0  # times the present rate that is believed to come within one start time
FALLEN = 2 / 3  # of the load that replicas were added for: then they may go before they have settled
GAP_S = 15.0  # looks that lie further apart than this are no unbroken watch
TELLING_CACHE = 0.3  # from this use on, the cache tells how many requests it holds
CACHE_LOOKS = 60  # over which that is smoothed
LOOK_AHEAD_S = 60.0  # at least: new replicas are for what is in service then
LATELY_S = 15.0


@dataclass(frozen=True, slots=True)
class Need:
    """What replicas are needed for."""

    load: float  # requests in service
    spread: float  # their standard deviation
    queued: float  # slots for working off what waits
    slots: float  # of one replica
    utilization: float  # most of the slots that load may take

    def replicas(self, headroom: float) -> int:
        """Return the replicas that hold the load with so many standard deviations kept free."""
        wanted = max(self.load + headroom * self.spread, self.load / self.utilization) + self.queued
        return math.ceil(wanted / self.slots - 1e-9)


class Scaler:
    """Decides for one deployment, look by look. ``config`` may be replaced at any time."""

    def __init__(self, config: StageScalingConfig) -> None:
        self.config = config
        self._flow = Flow()
        self._curve = ServiceCurve()
        self._startup = Startup()
        self._forget_windows()
        self._looked_s = -math.inf
        self._raised = (-math.inf, 0.0)  # (when replicas were last added, the most load since then)
        self._busy_at_s: float | None = None
        self._arrived = 0.0
        self._slots = 0.0
        self._cache_holds: float | None = None  # requests, in one replica's KV cache
        self._target: int | None = None

    @property
    def startup_s(self) -> float:
        """Seconds that a replica is expected to take to start."""
        own = self.config.startup_s if isinstance(self.config, AutoscalingConfig) else None
        return self._startup.seconds if own is None else own

    def decide(self, seen: Observation) -> Decision:
        """Return how many replicas there should be now, within the bounds. Looks come in the order of time."""
        config = self.config
        if seen.now_s - self._looked_s > GAP_S:
            self._forget_windows()
        if self._target is not None and seen.target > self._target:
            self._raised = seen.now_s, 0.0
        self._looked_s, self._target = seen.now_s, seen.target
        self._flow.add(seen)
        self._startup.see(seen.now_s, seen.target, seen.ready)
        self._slots = self._capacity(seen)
        idle_s = self._idle_s(seen)
        decision = self._decide(seen, idle_s)
        replicas = min(max(decision.replicas, config.min_replicas), config.max_replicas)
        if replicas == decision.replicas:
            return decision
        bound = "max_replicas" if replicas < decision.replicas else "min_replicas"
        return Decision(replicas, f"{decision.reason}; {bound}")

    def _decide(self, seen: Observation, idle_s: float) -> Decision:
        config, target = self.config, seen.target
        if target == 0:
            self._forget_windows()
            return Decision(1, "a request waits") if seen.open > 0 else Decision(0, "asleep")
        if self._slots <= 0:
            return Decision(target, "no replica has told its slots yet")
        need = self._need(seen)
        lasting = self._least.add(seen.now_s, need.replicas(config.headroom), window_s=config.upscale_delay_s)
        # What is in service stays so where replicas go: they finish it, and take its slots with them.
        kept = replace(need, load=max(need.load, seen.running))
        calm = self._most.add(seen.now_s, kept.replicas(config.headroom + CALM), window_s=config.downscale_delay_s)
        if lasting > target and self._least.covers(seen.now_s, config.upscale_delay_s):
            most = max(math.floor(target * config.max_upscale_factor), target + LEAST_STEP)
            return Decision(min(lasting, most), _why(need))
        if seen.open <= 0 and self._may_sleep(target, idle_s):
            return Decision(0, f"no request for {idle_s:.0f} s")
        is_settling = self._is_settling(seen.now_s, need.load)
        if max(calm, 1) < target and self._most.covers(seen.now_s, config.downscale_delay_s):
            surplus = Decision(max(calm, 1), f"a surplus for {config.downscale_delay_s:.0f} s; {_why(need)}")
            return Decision(target, f"settling; {_why(need)}") if is_settling else surplus
        return Decision(target, f"enough; {_why(need)}")

    def _forget_windows(self) -> None:
        """Begin to watch anew: what was so before a sleep or a silence says nothing of how long it has lasted now."""
        self._least, self._most = Extreme(is_max=False), Extreme(is_max=True)
        self._busy_at_s = None

    def _is_settling(self, now_s: float, load: float) -> bool:
        raised_s, most = self._raised
        self._raised = raised_s, max(most, load)
        return now_s - raised_s < self.config.settle_s and load > FALLEN * most

    def _need(self, seen: Observation) -> Need:
        slots, utilization = self._slots, self.config.target_utilization
        service = self._flow.service()
        if service is None or seen.arrived <= 0:  # nothing is known but what is open now; a Router never knows more
            return Need(seen.open, 0.0, 0.0, slots, utilization)
        busy = service.per_replica / slots
        self._curve.add(busy, service.seconds)
        service_s = self._curve.at(utilization, measured_s=service.seconds, measured_at=busy)
        rate = self._flow.arrivals_per_s(service_s)
        growth = self._flow.growth_per_s2() * self.startup_s
        settled = min(rate + growth, MOST_GROWTH * rate) * service_s
        # Long requests fill and leave their slots slowly, so what is in service a start time ahead lies between.
        passed = math.exp(-max(self.startup_s, LOOK_AHEAD_S) / service_s) if service_s > 0 else 0.0
        load = settled + (self._flow.running(LATELY_S) - settled) * passed
        spread = math.sqrt(load * (1 + self._flow.dispersion()) / 2)
        return Need(load, spread, self._slots_for_queue(seen, rate, service_s=service_s), slots, utilization)

    def _slots_for_queue(self, seen: Observation, rate: float, *, service_s: float) -> float:
        """Return the slots that work off, in time, what waits beyond the target when the next replicas come."""
        if seen.queue <= self.config.target_queue_depth * max(seen.ready, 1) or service_s <= 0:
            return 0.0
        served_per_s = seen.ready * self._slots / service_s
        more = max(0.0, rate - served_per_s) * self._startup.remaining_s(seen.now_s, self.startup_s)
        return (seen.queue + more) * min(1.0, service_s / self.config.queue_drain_s)

    def _capacity(self, seen: Observation) -> float:
        """Return the requests that one replica works on at a time; fewer than its slots where the cache is full first."""
        slots = (self.config.slots if isinstance(self.config, AutoscalingConfig) else None) or seen.slots
        if not slots:
            return self._slots  # of the last look that told it
        if seen.ready and seen.running and seen.kv_cache_usage >= TELLING_CACHE:
            holds = seen.running / seen.ready / seen.kv_cache_usage
            last = holds if self._cache_holds is None else self._cache_holds
            self._cache_holds = last + (holds - last) / CACHE_LOOKS
        return float(slots) if self._cache_holds is None else min(float(slots), max(1.0, self._cache_holds))

    def _idle_s(self, seen: Observation) -> float:
        # What has just been woken, or is still starting, has not been idle.
        if self._busy_at_s is None or not seen.ready or seen.open > 0 or seen.arrived > self._arrived:
            self._busy_at_s = seen.now_s
        self._arrived = seen.arrived
        return seen.now_s - self._busy_at_s

    def _may_sleep(self, target: int, idle_s: float) -> bool:
        config = self.config
        if target > 1 or config.min_replicas > 0 or not isinstance(config, AutoscalingConfig):
            return False
        delay_s = config.downscale_to_zero_delay_s
        return idle_s >= (config.downscale_delay_s if delay_s is None else delay_s)


def _why(need: Need) -> str:
    queued = f" and {need.queued:.1f} for the queue" if need.queued else ""
    return f"{need.load:.1f} ± {need.spread:.1f} requests{queued} in service, {need.slots:g} slots each"
