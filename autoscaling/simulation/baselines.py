"""Policies to compare with: a fixed number, Kubernetes' autoscaler, ours. Ray Serve's is in ``ray_default``."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Literal

from autoscaling.observation import Observation

if TYPE_CHECKING:
    from serve_app.config_scaling import StageScalingConfig

Metric = Literal["qps", "utilization"]

_SYNC_S = 15.0
_TOLERANCE = 0.1
_STABILIZATION_S = 300.0
_RATE_WINDOW_S = 60.0
_EPSILON = 1e-9  # sums of floats that should be equal are not quite


class Fixed:
    """Always the same number."""

    def __init__(self, replicas: int) -> None:
        self.name = f"fixed {replicas}"
        self._replicas = replicas

    def wanted(self, _: Observation) -> int:
        """Return that number."""
        return self._replicas


class QueueDepth:
    """Manta's own policy."""

    name = "manta"

    def __init__(self, config: StageScalingConfig) -> None:
        from autoscaling.scaler import Scaler

        self._scaler = Scaler(config)

    def wanted(self, seen: Observation) -> int:
        """Return what the Scaler decides."""
        return self._scaler.decide(seen).replicas


class HpaLike:
    """The algorithm of Kubernetes' HorizontalPodAutoscaler with the defaults of autoscaling/v2.

    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ : every 15 s; no change within a tolerance
    of 0.1; replicas that start count as using nothing when that means adding fewer; at most max(100 %, 4 pods) more per 15 s;
    the highest recommendation of the last 300 s when that means removing fewer.

    ``qps``: requests per second that arrive, over the last 60 s (Prometheus' rate over a minute), as an external metric with
    an AverageValue of ``target`` per replica. ``utilization``: mean share of busy slots of the replicas that serve, ``target``
    in 0..1. Raises ValueError when ``target`` is not over 0.
    """

    def __init__(self, metric: Metric, target: float) -> None:
        if not target > 0:
            raise ValueError(f"target must be over 0, got {target}")
        self.name = f"hpa {metric} {target:g}"
        self._metric = metric
        self._target = target
        self._next_sync_s = -math.inf
        self._arrived: deque[tuple[float, float]] = deque()  # time, requests arrived by then
        self._recommended: deque[tuple[float, int]] = deque()  # time, replicas

    def wanted(self, seen: Observation) -> int:
        """Return the present number until the next 15 s have passed, then what the algorithm wants."""
        qps = self._qps(seen)
        if seen.now_s + _EPSILON < self._next_sync_s:
            return seen.target
        self._next_sync_s = seen.now_s + _SYNC_S
        desired = self._by_qps(seen, qps) if self._metric == "qps" else self._by_utilization(seen)
        recommended = self._recommended
        if not recommended:  # the number that is found counts as the first recommendation, as in recordInitialRecommendation
            recommended.append((seen.now_s, seen.target))
        recommended.append((seen.now_s, desired))
        while recommended[0][0] < seen.now_s - _STABILIZATION_S:
            recommended.popleft()
        highest = max(replicas for _, replicas in recommended)
        # Up goes what is desired now, down only what nothing recommended lately speaks against.
        stable = desired if desired > seen.target else min(seen.target, highest)
        most = max(2 * seen.target, seen.target + 4)
        return max(1, min(stable, most))  # it cannot scale to zero

    def _by_qps(self, seen: Observation, qps: float) -> int:
        if seen.target and abs(1 - qps / (self._target * seen.target)) <= _TOLERANCE + _EPSILON:
            return seen.target
        return math.ceil(qps / self._target - _EPSILON)

    def _by_utilization(self, seen: Observation) -> int:
        if not seen.ready or seen.slots <= 0:
            return seen.target  # no metric: no decision
        ratio = seen.running / (seen.ready * seen.slots) / self._target
        replicas = seen.ready
        if ratio > 1 and seen.target > seen.ready:  # those that start would take their share
            replicas = seen.target
            ratio *= seen.ready / replicas
            if ratio < 1:
                return seen.target
        if abs(1 - ratio) <= _TOLERANCE + _EPSILON:
            return seen.target
        return math.ceil(ratio * replicas - _EPSILON)

    def _qps(self, seen: Observation) -> float:
        arrived = self._arrived
        arrived.append((seen.now_s, seen.arrived))
        while len(arrived) > 1 and arrived[1][0] <= seen.now_s - _RATE_WINDOW_S:
            arrived.popleft()
        passed_s = seen.now_s - arrived[0][0]
        return (seen.arrived - arrived[0][1]) / passed_s if passed_s else 0.0
