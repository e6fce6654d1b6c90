from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.flow import KEEP_S, MIN_SERVED, MINUTE_S, MOST_DISPERSION, RAMP_S, RAMP_STRETCHES, SHORT_S, SURE, Flow
from autoscaling.observation import Observation

AMOUNTS = st.floats(0, 1e6)
STEPS_S = st.just(0.0) | st.floats(0.01, 1000)


def look(now_s: float, arrived: float, *, running: float = 0.0, waiting: float = 0.0, ready: int = 1) -> Observation:
    return Observation(now_s, target=ready, ready=ready, waiting=waiting, running=running, arrived=arrived)


def crowd(rate_at: Callable[[int], float], seconds: int, *, service_s: float = 5.0, seed: int = 0) -> Flow:
    """Return the flow of Poisson arrivals that each keep a slot for a random time, with slots for all, seen every second."""
    random, flow, running, arrived = np.random.default_rng(seed), Flow(), 0, 0
    stays = np.exp(-1 / service_s)
    for now_s in range(seconds):
        come = int(random.poisson(rate_at(now_s)))
        running = int(random.binomial(running, stays)) + come
        arrived += come
        flow.add(look(now_s, arrived, running=running, ready=2))
    return flow


def even(arrived_at: Callable[[int], float], seconds: int) -> Flow:
    flow = Flow()
    for now_s in range(seconds):
        flow.add(look(now_s, arrived_at(now_s)))
    return flow


def slots_kept_s(service_s: float) -> float:
    """Return the mean of times that end at a look only, as those of `crowd` do."""
    return float(1 / (1 - np.exp(-1 / service_s)))


def test_before_the_first_look_nothing_flows() -> None:
    flow = Flow()
    assert (flow.age_s, flow.arrivals_per_s(), flow.growth_per_s2(), flow.service(), flow.dispersion()) == (0, 0, 0, None, 1)


def test_what_arrived_before_the_first_look_is_no_rate() -> None:
    flow = Flow()
    flow.add(look(50.0, 1e6))
    assert (flow.age_s, flow.arrivals_per_s()) == (0, 0)
    flow.add(look(51.0, 1e6))
    assert flow.arrivals_per_s() == 0


def test_the_rate_is_that_of_the_last_minute() -> None:
    assert even(lambda now_s: 4.0 * now_s, 300).arrivals_per_s() == pytest.approx(4.0)
    assert even(lambda now_s: 4.0 * now_s + max(0, now_s - 279), 300).arrivals_per_s() == pytest.approx(4.0 + 20 / MINUTE_S)


@pytest.mark.parametrize("seed", range(10))
def test_a_steady_rate_is_never_taken_for_much_more_or_less(seed: int) -> None:
    assert crowd(lambda _: 10.0, 400, seed=seed).arrivals_per_s() == pytest.approx(10.0, rel=0.25)


@pytest.mark.parametrize("seed", range(5))
def test_most_of_a_rise_of_ten_times_is_believed_within_seconds(seed: int) -> None:
    assert crowd(lambda now_s: 100.0 if now_s >= 300 else 10.0, 306, seed=seed).arrivals_per_s() > 70.0


@pytest.mark.parametrize(("after_s", "most"), [(11, 40.0), (16, 5.0), (31, 1.0), (61, 0.5)])
@pytest.mark.parametrize("seed", range(5))
def test_a_load_that_ends_is_believed_to_be_over_within_seconds(seed: int, after_s: int, most: float) -> None:
    assert crowd(lambda now_s: 0.0 if now_s >= 300 else 100.0, 300 + after_s, seed=seed).arrivals_per_s() < most


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0, 2.0, 4.0])
def test_a_pause_that_may_be_chance_leaves_the_mean_of_the_minute(rate: float) -> None:
    still_s = int(SURE**2 / rate)
    flow = even(lambda now_s: rate * min(now_s, 300), 301 + still_s)
    assert flow.arrivals_per_s() == pytest.approx(rate * (MINUTE_S - still_s) / MINUTE_S)


def test_what_is_shorter_than_a_window_says_nothing_of_an_end() -> None:
    flow = Flow()
    for now_s, arrived in ((0.0, 0), (1.0, 40), (SHORT_S[-1] - 0.5, 40)):
        flow.add(look(now_s, arrived))
    assert flow.arrivals_per_s() == pytest.approx(40 / SHORT_S[-1])


def test_a_few_requests_at_the_first_looks_are_no_high_rate() -> None:
    flow = Flow()
    for now_s, arrived in ((0.0, 0), (0.1, 3)):
        flow.add(look(now_s, arrived))
    assert flow.arrivals_per_s() == pytest.approx(3 / SHORT_S[-1])  # as if nothing came in the rest of the shortest window
    flow = even(lambda now_s: 3.0 if now_s else 0.0, 10)
    assert flow.arrivals_per_s() == pytest.approx(3 / 9)


@pytest.mark.parametrize(
    ("service_s", "window_s"),
    [(0.0, MINUTE_S), (30.0, MINUTE_S), (200.0, 200.0), (KEEP_S, KEEP_S), (5000.0, KEEP_S)],
)
def test_the_rate_of_long_requests_is_that_of_as_long_as_one_takes(service_s: float, window_s: float) -> None:
    flow = even(lambda now_s: 4.0 * now_s + 0.5 * max(0, now_s - 1180), 1201)  # half a request a second more, for 20 s
    assert flow.arrivals_per_s(service_s) == pytest.approx(4.0 + 10 / window_s)


@pytest.mark.parametrize("seed", range(5))
def test_the_rate_of_a_few_long_requests_is_steadier_than_that_of_a_minute(seed: int) -> None:
    random, flow, arrived, long, short = np.random.default_rng(seed), Flow(), 0, [], []
    for now_s in range(3600):
        arrived += int(random.poisson(0.05))
        flow.add(look(now_s, arrived))
        if now_s >= KEEP_S:
            long.append(flow.arrivals_per_s(600.0))
            short.append(flow.arrivals_per_s())
    assert np.std(long) < 0.5 * np.std(short)


@pytest.mark.parametrize("seed", range(5))
def test_a_rise_is_believed_within_seconds_however_long_requests_take(seed: int) -> None:
    risen = crowd(lambda now_s: 100.0 if now_s >= 700 else 10.0, 706, seed=seed)
    assert risen.arrivals_per_s(600.0) > 70.0


def test_what_runs_is_the_mean_of_the_last_seconds() -> None:
    flow = Flow()
    flow.add(look(0.0, 0, running=99))
    assert flow.running(15.0) == 0.0  # one look tells of no time
    for now_s in range(1, 31):
        flow.add(look(now_s, 0, running=10.0 if now_s <= 20 else 40.0))
    assert flow.running(5.0) == pytest.approx(40.0)
    assert flow.running(20.0) == pytest.approx((10 * 10 + 25 + 9 * 40) / 20)  # from one look to the next in a straight line
    assert flow.running(1e6) == pytest.approx(((99 + 10) / 2 + 19 * 10 + 25 + 9 * 40) / 30)


def test_a_ramp_grows_as_fast_as_it_does() -> None:
    flow = even(lambda now_s: 0.05 * now_s**2, 300)  # 0.1/s more each second
    assert flow.growth_per_s2() == pytest.approx(0.1)


@pytest.mark.parametrize(
    "arrived_at",
    [
        pytest.param(lambda now_s: 5.0 * now_s, id="steady"),
        pytest.param(lambda now_s: 3000.0 * now_s - 5.0 * now_s**2, id="falling"),
        *[
            pytest.param(lambda now_s, at_s=at_s: now_s + 100.0 * max(0, now_s - at_s), id=f"step-{300 - at_s}-s-ago")
            for at_s in range(160, 300, 10)
        ],
    ],
)
def test_what_is_no_ramp_does_not_grow(arrived_at: Callable[[int], float]) -> None:
    assert even(arrived_at, 300).growth_per_s2() == pytest.approx(0.0, abs=1e-9)


def test_growth_is_told_only_after_all_stretches_of_a_ramp_were_seen() -> None:
    length = int(RAMP_S * RAMP_STRETCHES)
    assert [even(lambda now_s: float(now_s**2), n).growth_per_s2() > 0 for n in (length, length + 1)] == [False, True]


@pytest.mark.parametrize("service_s", [2.0, 10.0, 40.0])
def test_service_time_of_steady_arrivals_is_within_a_few_percent(service_s: float) -> None:
    service = crowd(lambda _: 8.0, 900, service_s=service_s).service()
    assert service is not None
    assert service.seconds == pytest.approx(slots_kept_s(service_s), rel=0.1)
    assert service.per_replica == pytest.approx(8.0 * slots_kept_s(service_s) / 2, rel=0.25)


@pytest.mark.parametrize("after_s", [3, 10, 30, 60, 120])
@pytest.mark.parametrize("factor", [3, 10])
def test_a_sudden_rise_does_not_look_like_slow_requests(factor: int, after_s: int) -> None:
    service = crowd(lambda now_s: 5.0 * (factor if now_s >= 400 else 1), 400 + after_s, service_s=10.0).service()
    assert service is not None
    assert service.seconds == pytest.approx(slots_kept_s(10.0), rel=0.25)


def test_few_requests_are_read_from_a_longer_window() -> None:
    flow = even(lambda now_s: now_s / 20, 500)  # three a minute, none of which keeps anything
    assert flow.service() == (0.0, 0.0)


def test_too_few_requests_tell_no_service_time() -> None:
    assert even(lambda now_s: min(float(now_s), MIN_SERVED - 1), 300).service() is None


def test_where_no_replica_served_nobody_had_requests() -> None:
    flow = Flow()
    for now_s in range(60):
        flow.add(look(now_s, now_s, running=1, ready=0))
    service = flow.service()
    assert service is not None
    assert service == pytest.approx((1.0, 0.0), rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_dispersion_of_poisson_arrivals_is_about_1(seed: int) -> None:
    assert 1.0 <= crowd(lambda _: 6.0, 600, seed=seed).dispersion() < 1.6


def test_bursts_have_a_higher_dispersion() -> None:
    random = np.random.default_rng(0)
    counts = np.cumsum(random.negative_binomial(1, 1 / 31, size=600))  # mean 30, variance 31 times that
    assert 10.0 < even(lambda now_s: float(counts[now_s]), 600).dispersion() <= MOST_DISPERSION


def test_dispersion_has_a_limit() -> None:
    assert even(lambda now_s: 1e4 * (now_s // 17), 600).dispersion() == MOST_DISPERSION


def test_a_rate_that_drifts_is_no_burst() -> None:
    assert even(lambda now_s: 0.05 * now_s**2, 600).dispersion() == 1.0


@pytest.mark.parametrize("after_s", [1, 5, 10, 20, 40, 60, 120, 200])
@pytest.mark.parametrize(("before", "after"), [(8.0, 80.0), (80.0, 8.0)], ids=["up", "down"])
def test_a_step_is_no_burst_however_long_ago(before: float, after: float, after_s: int) -> None:
    assert crowd(lambda now_s: after if now_s >= 300 else before, 300 + after_s).dispersion() < 2.0


@pytest.mark.parametrize("seed", range(5))
def test_bursts_that_go_on_over_a_step_stay_bursts(seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = np.cumsum(random.negative_binomial(1, 1 / 31, size=600) * np.where(np.arange(600) >= 500, 2, 1))
    assert even(lambda now_s: float(counts[now_s]), 600).dispersion() > 10.0


def test_too_few_requests_are_no_burst() -> None:
    assert even(lambda now_s: 19.0 if now_s >= 100 else 0.0, 300).dispersion() == 1.0


def test_a_counter_that_falls_counts_as_still() -> None:
    flow = even(lambda now_s: 4.0 * now_s if now_s < 100 else 4.0 * (now_s - 100), 200)
    assert flow.arrivals_per_s() == pytest.approx(4.0)
    assert even(lambda now_s: 1000.0 - now_s, 200).arrivals_per_s() == 0.0


def test_what_is_remembered_is_bounded() -> None:
    flow, ages_s = Flow(), []
    for now_s in range(5000):
        flow.add(look(now_s, 4.0 * now_s, running=8))
        ages_s.append(flow.age_s)
    assert max(ages_s) <= 2 * KEEP_S
    assert min(ages_s[int(KEEP_S) :]) >= KEEP_S
    assert flow.arrivals_per_s() == pytest.approx(4.0)
    service = flow.service()
    assert service is not None
    assert service == pytest.approx((2.0, 8.0))


@given(looks=st.lists(st.tuples(STEPS_S, AMOUNTS, AMOUNTS, AMOUNTS, st.integers(0, 50)), max_size=60))
def test_whatever_is_seen_nothing_is_negative_or_no_number(looks: list[tuple[float, float, float, float, int]]) -> None:
    flow, now_s = Flow(), 0.0
    for step_s, arrived, running, waiting, ready in looks:
        now_s += step_s
        flow.add(look(now_s, arrived, running=running, waiting=waiting, ready=ready))
        values = (flow.age_s, flow.arrivals_per_s(), flow.growth_per_s2(), *(flow.service() or ()))
        assert all(0 <= value < float("inf") for value in values)
        assert 1 <= flow.dispersion() <= MOST_DISPERSION
