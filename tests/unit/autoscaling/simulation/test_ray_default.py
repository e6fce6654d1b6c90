from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.serve._private.common import TimeStampedValue
from ray.serve._private.metrics_utils import time_weighted_average
from ray.serve.autoscaling_policy import _apply_autoscaling_config, replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingConfig

from autoscaling.observation import Observation
from autoscaling.simulation.ray_default import RayDefault

CONFIG = AutoscalingConfig(min_replicas=0, max_replicas=50, target_ongoing_requests=4, upscale_delay_s=3, downscale_delay_s=9)
LOOKS = st.lists(st.tuples(st.floats(0.1, 5), st.integers(0, 6), st.integers(0, 6), st.integers(0, 60)), min_size=1)


def looks_of(rows: list[tuple[float, int, int, int]]) -> list[Observation]:
    now_s, looks = 0.0, []
    for passed_s, ready, target, running in rows:
        now_s += passed_s
        looks.append(Observation(now_s=now_s, target=target, ready=ready, running=running))
    return looks


@settings(deadline=None)
@given(LOOKS, st.sampled_from([None, 0.5, 3.0]), st.sampled_from([None, 1.0]))
def test_decisions_are_those_of_rays_own_decorator(
    rows: list[tuple[float, int, int, int]], factor: float | None, to_zero_s: float | None
) -> None:
    config = CONFIG.model_copy(
        update={"upscaling_factor": factor, "downscaling_factor": factor, "downscale_to_zero_delay_s": to_zero_s}
    )
    ours, theirs = RayDefault(config), RayDefault(config)
    real = _apply_autoscaling_config(replica_queue_length_autoscaling_policy)
    state: dict[str, Any] = {}
    for look in looks_of(rows):
        ctx = theirs._context(look)
        ctx.policy_state = state
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda now_s=look.now_s: now_s)
            replicas, state = real(ctx)
        assert ours.wanted(look) == math.ceil(replicas)


@given(st.lists(st.tuples(st.floats(0.1, 5), st.just(1), st.just(1), st.integers(0, 60)), min_size=2))
def test_the_mean_is_rays_time_weighted_one(rows: list[tuple[float, int, int, int]]) -> None:
    policy = RayDefault(CONFIG, push_s=0.0)
    looks = looks_of(rows)
    total = [policy._context(look).total_num_requests for look in looks][-1]
    now_s = looks[-1].now_s
    series = [TimeStampedValue(look.now_s, look.open) for look in looks if look.now_s >= now_s - 30.0]
    assert total == pytest.approx(time_weighted_average(series, last_window_s=1e-3))


def test_counts_are_pushed_every_10_seconds_and_last_until_the_next_push() -> None:
    policy = RayDefault(CONFIG)
    totals = []
    for second in range(22):
        look = Observation(now_s=float(second), target=1, ready=1, running=0.0 if second == 0 else 20.0)
        totals.append(policy._context(look).total_num_requests)
    assert totals[:10] == [0.0] * 10  # only what was there at second 0
    assert totals[10] == pytest.approx(18.0, rel=1e-4)  # 9 of 10 s
    assert totals[19] == pytest.approx(20 * 18 / 19)
    assert RayDefault(CONFIG).name == "ray default"


def test_the_default_upscale_delay_passes_on_simulated_time() -> None:
    policy = RayDefault(CONFIG, push_s=0.0)
    looks = [Observation(now_s=float(second), target=1, ready=1, running=8.0) for second in range(5)]
    assert [policy.wanted(look) for look in looks] == [1, 1, 1, 2, 1]


def test_a_waiting_request_wakes_a_deployment_without_replicas() -> None:
    policy = RayDefault(CONFIG, push_s=0.0)
    assert policy.wanted(Observation(now_s=0.0, target=0, ready=0)) == 0
    assert policy.wanted(Observation(now_s=1.0, target=2, ready=0)) == 2  # they start: nothing else is decided
    assert policy.wanted(Observation(now_s=2.0, target=0, ready=0, held=9.0)) == 1
