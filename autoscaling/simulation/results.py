"""Result: how a policy did on a trace, in service levels and in replica-seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from autoscaling.simulation.options import SimulationOptions
from autoscaling.simulation.requests import Requests
from autoscaling.simulation.timeline import Timeline

REVERSAL_WINDOW_S = 600.0
_QUANTILES = (50, 90, 95, 99)

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of one latency, in seconds; NaN where nothing was measured."""

    p50: float
    p90: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Values) -> Percentiles:
        """Return those of the values that are numbers."""
        known = values[~np.isnan(values)]
        return cls(*(np.percentile(known, _QUANTILES).tolist() if known.size else [math.nan] * len(_QUANTILES)))

    def to_dict(self) -> dict[str, float | None]:
        """Return them by name, None for NaN, which JSON has not."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Service:
    """What the users got. Counts requests that arrived after the warm-up."""

    requests: int
    finished: int
    attainment: float  # share that met both objectives, 0..1; an unfinished request met none
    ttft_s: Percentiles  # arrival to first token; one that has none: to the end of the run, as it took at least that
    itl_s: Percentiles  # mean time between tokens of each finished answer of two tokens or more
    queue_s: Percentiles  # arrival until a replica begins to read the prompt, to the end of the run for one that none read
    gap_s: Percentiles  # longest time between two tokens of each such answer


@dataclass(frozen=True, slots=True)
class Cost:
    """What it took, from the end of the warm-up to the end of the trace."""

    replica_seconds: float  # starting, ready and draining replicas
    mean_replicas: float
    max_replicas: int


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Scores of one run."""

    policy: str
    trace: str
    service: Service
    cost: Cost
    reversals: int  # changes of the target against the one before, less than REVERSAL_WINDOW_S apart
    timeline: Timeline

    @property
    def attainment(self) -> float:
        """Share of requests that met both objectives, 0..1."""
        return self.service.attainment

    @property
    def replica_seconds(self) -> float:
        """Seconds that replicas started, served and drained, summed over them."""
        return self.cost.replica_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it, flat but for percentiles and the timeline."""
        flat: dict[str, Any] = {"policy": self.policy, "trace": self.trace}
        for part in (self.service, self.cost):
            for each in fields(part):
                value = getattr(part, each.name)
                flat[each.name] = value.to_dict() if isinstance(value, Percentiles) else value
        return {**flat, "reversals": self.reversals, "timeline": self.timeline.to_dict()}


def service(requests: Requests, options: SimulationOptions, *, end_s: float) -> Service:
    """Return the latencies of the requests after the warm-up; the run ended at ``end_s``."""
    arrived_s = np.asarray(requests.arrived_s)
    scored = arrived_s >= options.warm_up_s
    arrived_s = arrived_s[scored]
    started_s, first_s, finished_s = (
        np.asarray(each)[scored] for each in (requests.started_s, requests.first_s, requests.finished_s)
    )
    is_finished = finished_s >= 0
    ttft_s = np.where(first_s >= 0, first_s, end_s) - arrived_s
    more_tokens = np.asarray(requests.output_tokens)[scored] - 1
    has_itl = is_finished & (more_tokens > 0)
    itl_s = np.where(has_itl, (finished_s - first_s) / np.maximum(more_tokens, 1), np.nan)
    is_met = is_finished & (ttft_s <= options.slo_ttft_s) & ~(itl_s > options.slo_itl_s)
    return Service(
        requests=arrived_s.size,
        finished=int(is_finished.sum()),
        attainment=float(is_met.mean()) if arrived_s.size else 1.0,
        ttft_s=Percentiles.of(ttft_s),
        itl_s=Percentiles.of(itl_s),
        queue_s=Percentiles.of(np.where(started_s >= 0, started_s, end_s) - arrived_s),
        gap_s=Percentiles.of(np.where(has_itl, np.asarray(requests.gap_s)[scored], np.nan)),
    )


def cost(lifespans: Sequence[tuple[float, float]], from_s: float, until_s: float) -> Cost:
    """Return what replicas that began and ended at those times cost between the two moments."""
    spans = np.clip(np.asarray(lifespans, dtype=np.float64).reshape(-1, 2), from_s, max(from_s, until_s))
    lengths_s = spans[:, 1] - spans[:, 0]
    spans = spans[lengths_s > 0]
    # One that goes at the moment at which another comes makes no peak: ends sort before beginnings.
    times_s = np.concatenate([spans[:, 1], spans[:, 0]])
    steps = np.repeat([-1, 1], len(spans))[np.argsort(times_s, kind="stable")]
    total = float(lengths_s.sum())
    return Cost(
        replica_seconds=total,
        mean_replicas=total / (until_s - from_s) if until_s > from_s else 0.0,
        max_replicas=int(steps.cumsum().max(initial=0)),
    )
