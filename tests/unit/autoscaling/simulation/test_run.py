from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.observation import Observation
from autoscaling.simulation.baselines import Fixed
from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.options import SimulationOptions
from autoscaling.simulation.run import Simulation, simulate
from autoscaling.simulation.trace import Trace

MODEL = LatencyModel(
    step_s=0.25, step_s_per_sequence=0.0, prefill_s_per_token=0.0, slots=2, max_batched_tokens=64, startup_s=2.0
)


class Scripted:
    """A policy that does what it is told, and keeps what it saw."""

    def __init__(self, wanted: Callable[[Observation], int]) -> None:
        self.name = "scripted"
        self.seen: list[Observation] = []
        self._wanted = wanted

    def wanted(self, seen: Observation) -> int:
        self.seen.append(seen)
        return self._wanted(seen)


def trace_of(arrivals_s: list[float], duration_s: float, *, output: int = 4) -> Trace:
    count = len(arrivals_s)
    return Trace("t", np.array(arrivals_s, dtype=float), np.full(count, 8), np.full(count, output), duration_s)


def test_the_policy_sees_the_load_late_but_its_own_numbers_at_once() -> None:
    policy = Scripted(lambda seen: 2 if seen.now_s >= 2 else 1)
    options = SimulationOptions(max_replicas=2, delay_s=2.0, interval_s=1.0)
    simulate(trace_of([0.5, 1.5, 2.5, 3.5], 5.0, output=1), MODEL, policy, options=options)
    assert [(each.now_s, each.arrived) for each in policy.seen] == [(1.0, 0), (2.0, 0), (3.0, 1), (4.0, 2), (5.0, 3)]
    assert [(each.target, each.ready) for each in policy.seen] == [(1, 1), (1, 1), (2, 1), (2, 2), (2, 2)]


def test_a_lost_report_leaves_the_policy_with_the_one_before() -> None:
    def arrived(loss: float) -> list[float]:
        policy = Scripted(lambda _: 1)
        options = SimulationOptions(max_replicas=1, delay_s=0.0, report_loss=loss, seed=3)
        simulate(trace_of([0.5 + each for each in range(20)], 20.0, output=1), MODEL, policy, options=options)
        return [each.arrived for each in policy.seen]

    assert arrived(0.0) == list(range(1, 21))
    assert arrived(1.0) == [0] * len(arrived(1.0))
    some = arrived(0.5)
    assert some[:20] == sorted(some[:20])
    assert 5 <= len(set(some)) <= 16


def test_targets_stay_within_the_bounds() -> None:
    policy = Scripted(lambda seen: 99 if seen.now_s < 5 else -1)
    result = simulate(
        trace_of([], 10.0), MODEL, policy, options=SimulationOptions(min_replicas=2, max_replicas=5, sample_s=1.0)
    )
    assert result.timeline.target.tolist() == [2, 2, 5, 5, 5, 5, 2, 2, 2, 2, 2]
    assert (result.reversals, result.cost.max_replicas) == (1, 5)
    assert result.replica_seconds == 4 * 5 + 6 * 2


def test_the_timeline_shows_the_course_in_even_steps() -> None:
    options = SimulationOptions(max_replicas=1, sample_s=2.0, max_leases=3)
    result = simulate(trace_of([3.5, 3.6, 3.7, 3.8], 7.0), MODEL, Fixed(1), options=options)
    line = result.timeline
    assert line.time_s.tolist() == [0.0, 2.0, 4.0, 6.0]
    assert line.arrivals_per_s.tolist() == [0.0, 0.0, 2.0, 0.0]
    assert (line.queue.tolist(), line.running.tolist()) == ([0, 0, 2, 0], [0, 0, 2, 0])
    assert (line.ready.tolist(), line.alive.tolist()) == ([1, 1, 1, 1], [1, 1, 1, 1])


def test_requests_may_finish_after_the_trace_but_not_for_ever() -> None:
    trace = trace_of([9.0, 9.5], 10.0, output=100)  # 25 s each
    whole = simulate(trace, MODEL, Fixed(1))
    assert (whole.service.finished, whole.replica_seconds) == (2, 10.0)
    cut = simulate(trace, MODEL, Fixed(1), options=SimulationOptions(finish_s=5.0))
    assert (cut.service.finished, cut.attainment) == (0, 0.0)


def test_a_result_is_plain_json() -> None:
    result = simulate(trace_of([1.0, 2.0], 10.0), MODEL, Fixed(1), options=SimulationOptions(slo_itl_s=0.25))
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [data[key] for key in ("policy", "trace", "requests", "attainment", "reversals")] == ["fixed 1", "t", 2, 1.0, 0]
    assert data["ttft_s"] == {"p50": 0.25, "p90": 0.25, "p95": 0.25, "p99": 0.25}
    assert data["timeline"]["time_s"] == [0.0, 10.0]


@settings(max_examples=60, deadline=None)
@given(
    arrivals_s=st.lists(st.floats(0, 30), max_size=60).map(sorted),
    seed=st.integers(0, 1000),
    max_leases=st.integers(1, 5),
    kv_tokens=st.sampled_from([None, 20]),
)
def test_whatever_the_policy_does_each_request_is_answered_once_and_nothing_is_cut(
    arrivals_s: list[float], seed: int, max_leases: int, kv_tokens: int | None
) -> None:
    random = np.random.default_rng(seed)
    model = LatencyModel(
        step_s=0.25, prefill_s_per_token=0.01, slots=2, max_batched_tokens=8, startup_s=1.5, kv_tokens=kv_tokens
    )
    trace = trace_of(arrivals_s, 30.0, output=6)
    options = SimulationOptions(min_replicas=0, max_replicas=5, sample_s=1.0, max_leases=max_leases, finish_s=0.0)
    simulation = Simulation(trace, model, options)

    def wanted(seen: Observation) -> int:
        for replica in simulation.fleet.replicas:
            assert 0 <= replica.running <= model.slots
            assert replica.open == replica.running + len(replica.waiting) <= max_leases
        return int(random.integers(0, 6))

    policy = Scripted(wanted)
    simulation.play(policy)
    simulation.fleet.scale(5)
    simulation.fleet.advance(500.0)
    requests = simulation.requests
    assert simulation.fleet.finished == len(arrivals_s) == sum(time_s > 0 for time_s in requests.finished_s)
    for times in zip(requests.arrived_s, requests.started_s, requests.first_s, requests.finished_s, strict=True):
        assert list(times) == sorted(times)
        assert times[2] - times[0] >= model.step_s + 8 * model.prefill_s_per_token - 1e-9
        assert times[3] - times[2] >= 5 * model.step_s - 1e-9

    result = simulation.result(policy)
    # A decision shows at the next sample, so each sample stands for the second before it; a drained replica that went within
    # that second is missing from it.
    sampled = result.timeline.alive[1:].sum()
    assert -1e-6 <= result.replica_seconds - sampled <= sum(math.isfinite(end_s) for _, end_s in simulation.fleet.lifespans())


@pytest.mark.parametrize(("replicas", "slots"), [(1, 3), (3, 1)], ids=["slots-of-one-replica", "replicas-of-one-slot"])
def test_the_share_of_requests_that_wait_is_erlangs(replicas: int, slots: int) -> None:
    # Exponential answers of 1 s in steps of 1 ms, 1.5 requests per second, 3 places: an M/M/3 queue.
    random = np.random.default_rng(7)
    count = 10_000
    arrivals_s = np.cumsum(random.exponential(1 / 1.5, count))
    outputs = np.ceil(random.exponential(1000, count)).astype(int)
    trace = Trace("M/M/3", arrivals_s, np.ones(count, dtype=int), outputs, float(arrivals_s[-1]) + 1)
    model = LatencyModel(step_s=0.001, step_s_per_sequence=0.0, prefill_s_per_token=0.0, slots=slots, max_batched_tokens=64)
    leases = 100_000 if replicas == 1 else 1  # one queue: in the replica, or in the Router
    options = SimulationOptions(initial_replicas=replicas, max_replicas=replicas, max_leases=leases, interval_s=1000.0)
    simulation = Simulation(trace, model, options)
    simulation.play(Fixed(replicas))
    waits_s = np.array(simulation.requests.started_s) - np.array(simulation.requests.arrived_s)
    terms = [1.5**busy / math.factorial(busy) for busy in range(4)]
    tail = terms[3] * 3 / (3 - 1.5)
    erlang_c = tail / (sum(terms[:3]) + tail)
    assert (waits_s > 0.0015).mean() == pytest.approx(erlang_c, abs=0.02)  # more than for the step to end
    assert waits_s.mean() == pytest.approx(erlang_c / (3 - 1.5), abs=0.02)
