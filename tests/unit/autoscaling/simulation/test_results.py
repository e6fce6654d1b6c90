from __future__ import annotations

import math

import numpy as np
import pytest

from autoscaling.simulation.options import SimulationOptions
from autoscaling.simulation.requests import NOT_YET, Requests
from autoscaling.simulation.results import Cost, Percentiles, cost, service
from autoscaling.simulation.trace import Trace

OPTIONS = SimulationOptions(slo_ttft_s=2.0, slo_itl_s=0.5)


def requests_of(*rows: tuple[float, float, float, float, int]) -> Requests:
    """Each row: arrival, start, first token, last token, output tokens."""
    arrivals_s, outputs = np.array([row[0] for row in rows]), np.array([row[4] for row in rows], dtype=int)
    requests = Requests(Trace("t", arrivals_s, np.ones(len(rows), dtype=int), outputs, 100.0))
    requests.started_s, requests.first_s, requests.finished_s = ([row[column] for row in rows] for column in (1, 2, 3))
    return requests


@pytest.mark.parametrize(
    ("row", "is_met"),
    [
        ((1.0, 1.5, 3.0, 5.0, 5), True),
        ((1.0, 1.5, 3.5, 5.0, 5), False),
        ((1.0, 1.5, 3.0, 5.5, 5), False),
        ((1.0, 1.5, 3.0, 3.0, 1), True),
        ((1.0, 1.5, 3.0, NOT_YET, 5), False),
    ],
    ids=["at-both-objectives", "late-first-token", "slow-tokens", "one-token", "unfinished"],
)
def test_a_request_meets_both_objectives_or_none(row: tuple[float, float, float, float, int], is_met: bool) -> None:
    assert service(requests_of(row), OPTIONS, end_s=9.0).attainment == is_met


def test_what_never_came_took_at_least_until_the_end() -> None:
    result = service(requests_of((4.0, NOT_YET, NOT_YET, NOT_YET, 5)), OPTIONS, end_s=10.0)
    assert (result.requests, result.finished) == (1, 0)
    assert (result.ttft_s, result.queue_s) == (Percentiles(6.0, 6.0, 6.0, 6.0), Percentiles(6.0, 6.0, 6.0, 6.0))
    assert result.itl_s.to_dict() == {"p50": None, "p90": None, "p95": None, "p99": None}


def test_requests_of_the_warm_up_do_not_count() -> None:
    requests = requests_of((0.0, 8.0, 9.0, 10.0, 2), (5.0, 5.0, 6.0, 6.25, 2))
    result = service(requests, SimulationOptions(slo_itl_s=0.5, warm_up_s=5.0), end_s=10.0)
    assert (result.requests, result.attainment, result.ttft_s.p99, result.itl_s.p50) == (1, 1.0, 1.0, 0.25)


def test_without_requests_nothing_is_missed() -> None:
    result = service(requests_of(), OPTIONS, end_s=1.0)
    assert (result.requests, result.attainment, math.isnan(result.ttft_s.p50)) == (0, 1.0, True)


def test_cost_counts_each_replica_within_the_scored_time() -> None:
    lifespans = [(0.0, math.inf), (0.0, 12.0), (12.0, 15.0), (18.0, 30.0), (21.0, 25.0), (2.0, 2.0)]
    assert cost(lifespans, 10.0, 20.0) == Cost(replica_seconds=17.0, mean_replicas=1.7, max_replicas=2)


def test_no_replicas_or_no_time_cost_nothing() -> None:
    assert cost([], 0.0, 10.0) == Cost(0.0, 0.0, 0)
    assert cost([(0.0, math.inf)], 10.0, 5.0) == Cost(0.0, 0.0, 0)
