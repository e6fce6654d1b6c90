from __future__ import annotations

import numpy as np
import pytest

from autoscaling.observation import Observation
from autoscaling.simulation.baselines import Fixed
from autoscaling.simulation.latency import LatencyModel
from autoscaling.simulation.options import SimulationOptions
from autoscaling.simulation.oracle import Load, Oracle, best_oracle
from autoscaling.simulation.run import simulate
from autoscaling.simulation.trace import Trace

MODEL = LatencyModel(
    step_s=0.05, step_s_per_sequence=0.0, prefill_s_per_token=0.0, slots=4, max_batched_tokens=64, startup_s=20
)
OPTIONS = SimulationOptions(max_replicas=12, slo_ttft_s=1.0, slo_itl_s=0.1, warm_up_s=30.0)


def trace_of(arrivals_s: list[float], duration_s: float, *, prompt: int = 8, output: int = 40) -> Trace:
    count = len(arrivals_s)
    return Trace("step", np.array(arrivals_s), np.full(count, prompt), np.full(count, output), duration_s)


def step_trace() -> Trace:
    """1 request per second, 10 of them from 60 to 90 s; each takes 2 s."""
    times_s = np.concatenate([np.arange(0.5, 60), np.arange(60, 90, 0.1), np.arange(90.5, 150)])
    return trace_of(times_s.tolist(), 150.0)


def test_load_is_the_requests_in_service_in_each_second() -> None:
    load = Load.of(trace_of([0.5, 1.5, 3.0], 5.0), MODEL)  # 2 s each
    assert load.requests.tolist() == [1.0, 2.0, 2.0, 2.0, 1.0, 0.0]


def test_prompts_of_the_other_slots_lengthen_a_request() -> None:
    model = LatencyModel(step_s=0.05, step_s_per_sequence=0.0, prefill_s_per_token=0.1, slots=4, max_batched_tokens=64)
    load = Load.of(trace_of([0.5], 8.0), model)  # 40 x 0.05 + 4 x 8 x 0.1 = 5.2 s
    assert load.requests.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]


def test_it_asks_for_replicas_a_start_time_ahead_and_drops_them_when_they_are_not_needed() -> None:
    load = Load(np.array([4.0] * 40 + [12.0] * 10 + [4.0] * 10), slots=4, startup_s=20.0)
    oracle = Oracle(load, factor=1.0, window_s=5.0)
    wanted = [oracle.wanted(Observation(now_s=second, target=1, ready=1)) for second in (0, 14, 15, 20, 49, 50, 59, 900)]
    assert wanted == [1, 1, 3, 3, 3, 1, 1, 1]


def test_a_trace_without_requests_needs_no_replicas() -> None:
    oracle, result = best_oracle(
        trace_of([], 60.0), MODEL, options=SimulationOptions(min_replicas=0, initial_replicas=1), windows_s=(0.0,)
    )
    assert (oracle.name, result.attainment, result.replica_seconds) == ("oracle", 1.0, 1.0)


def test_the_best_one_attains_what_is_asked_and_costs_less_than_the_peak_all_the_time() -> None:
    oracle, result = best_oracle(step_trace(), MODEL, options=OPTIONS, windows_s=(0.0, 5.0))
    peak = simulate(step_trace(), MODEL, Fixed(6), options=OPTIONS)
    assert result.attainment >= 0.99
    assert peak.attainment >= 0.99
    assert result.replica_seconds < 0.8 * peak.replica_seconds
    again = simulate(step_trace(), MODEL, oracle, options=OPTIONS)
    assert again.replica_seconds == result.replica_seconds


def test_where_none_attains_it_the_best_service_wins() -> None:
    options = SimulationOptions(max_replicas=2, slo_ttft_s=1.0)
    _, result = best_oracle(step_trace(), MODEL, options=options, windows_s=(60.0,))
    most = simulate(step_trace(), MODEL, Fixed(2), options=options)
    assert result.attainment == pytest.approx(most.attainment, abs=0.02)
    assert result.attainment < 0.99


def test_options_are_optional() -> None:
    _, result = best_oracle(trace_of([1.0], 3.0), MODEL, windows_s=(0.0,))
    assert (result.attainment, result.replica_seconds) == (1.0, 3.0)
