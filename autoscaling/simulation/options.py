"""SimulationOptions: what a comparison of policies holds fixed, and the Policy that it compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autoscaling.observation import Observation

_POSITIVE = ("max_replicas", "interval_s", "max_leases", "slo_ttft_s", "slo_itl_s", "sample_s")
_NOT_NEGATIVE = ("min_replicas", "delay_s", "warm_up_s", "finish_s")


class Policy(Protocol):
    """Says how many replicas there should be. Asked in order of time, so it may remember; use a new one for each run."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def wanted(self, seen: Observation) -> int:
        """Return the number of replicas wanted, in any range: the run keeps it within its bounds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationOptions:
    """Bounds, control loop, metrics path and objectives of a run. Raises ValueError that names a field out of its range."""

    min_replicas: int = 1
    max_replicas: int = 100
    initial_replicas: int | None = None  # ready at second 0; None: min_replicas
    interval_s: float = 1.0  # seconds between two decisions
    delay_s: float = 1.0  # age of the load that the policy sees, in seconds
    max_leases: int = 256  # requests that the Router may have open on one replica
    slo_ttft_s: float = 2.0  # seconds from arrival to the first token
    slo_itl_s: float = 0.1  # seconds between tokens, mean of one answer
    sample_s: float = 10.0  # seconds between two points of the timeline
    warm_up_s: float = 0.0  # seconds at the beginning that are not scored
    finish_s: float = 600.0  # seconds after the trace that requests may still take
    report_loss: float = 0.0  # probability that a decision gets no fresh observation
    seed: int = 0  # of what chance decides

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} must be over 0, got {value}")
        for name in _NOT_NEGATIVE:
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        if not 0 <= self.report_loss <= 1:
            raise ValueError(f"report_loss must be between 0 and 1, got {self.report_loss}")
        if not self.min_replicas <= self.first_replicas <= self.max_replicas:
            bounds = f"min_replicas {self.min_replicas} and max_replicas {self.max_replicas}"
            raise ValueError(f"initial_replicas must be between {bounds}, got {self.first_replicas}")

    @property
    def first_replicas(self) -> int:
        """Replicas at second 0."""
        return self.min_replicas if self.initial_replicas is None else self.initial_replicas

    def clamp(self, replicas: int) -> int:
        """Return the number within the bounds."""
        return max(self.min_replicas, min(self.max_replicas, replicas))
