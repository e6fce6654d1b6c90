"""Curve: how much longer a request keeps its slot in a fuller replica, learnt while the load varies."""

from __future__ import annotations

PRIOR = 0.5  # a full replica is believed to be this much slower than an empty one, until more is known
PRIOR_WEIGHT = 3.0  # in looks times squared utilization: what ten minutes of moderate ups and downs outweigh
FORGET = 1 - 1 / 7200  # per look


class ServiceCurve:
    """Service time against utilization, a straight line: each step of a batch costs a constant and a part per sequence.

    Weighted least squares with exponential forgetting, and a prior on the slope (ridge regression): a load that never
    varied says nothing of what more of it would do.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._x = self._y = self._xx = self._xy = 0.0

    def add(self, utilization: float, service_s: float) -> None:
        """Take one look: the utilization of the slots, and the service time that was measured with it."""
        self._weight = self._weight * FORGET + 1.0
        self._x = self._x * FORGET + utilization
        self._y = self._y * FORGET + service_s
        self._xx = self._xx * FORGET + utilization * utilization
        self._xy = self._xy * FORGET + utilization * service_s

    def at(self, utilization: float, *, measured_s: float, measured_at: float) -> float:
        """Return the service time to expect at a utilization, going from what is measured now along the line."""
        return max(measured_s / 2, measured_s + self._slope() * (utilization - measured_at))

    def _slope(self) -> float:
        """Seconds more per 1 of utilization, at least 0."""
        if not self._weight:
            return 0.0
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        spread = self._xx - self._weight * mean_x * mean_x
        shared = self._xy - self._weight * mean_x * mean_y
        prior = PRIOR * mean_y
        return max(0.0, (max(0.0, shared) + PRIOR_WEIGHT * prior) / (max(0.0, spread) + PRIOR_WEIGHT))
