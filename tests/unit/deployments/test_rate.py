from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.rate import STEPS, Rate
from tests.unit.deployments.clock import Clock


def test_nothing_counted_is_a_rate_of_0() -> None:
    assert Rate(clock=Clock()).per_s() == 0


def test_a_steady_flow_has_its_rate() -> None:
    clock = Clock()
    rate = Rate(window_s=5.0, clock=clock)
    for _ in range(100):
        clock.now_s += 0.1
        rate.add(7)
    assert rate.per_s() == pytest.approx(70, rel=0.05)


def test_when_nothing_more_comes_it_falls_to_0_within_the_window() -> None:
    clock = Clock()
    rate = Rate(window_s=5.0, clock=clock)
    rate.add(100)
    found = []
    for _ in range(11):
        found.append(rate.per_s())
        clock.now_s += 0.5
    assert found == sorted(found, reverse=True)
    assert (found[0] > 0, found[9] > 0, found[10]) == (True, True, 0)


def test_a_busy_engine_costs_no_memory() -> None:
    clock = Clock()
    rate = Rate(window_s=5.0, clock=clock)
    for _ in range(5000):
        clock.now_s += 0.01
        rate.add(1)
    assert len(rate._counts) == STEPS


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 10_000)), max_size=50), st.floats(0.1, 60))
def test_it_is_never_negative_nor_over_what_was_counted_in_nine_tenths_of_the_window(
    events: list[tuple[float, int]], window_s: float
) -> None:
    clock = Clock(0.0)
    rate = Rate(window_s=window_s, clock=clock)
    total = 0
    for passed_s, count in events:
        clock.now_s += passed_s
        rate.add(count)
        total += count
        assert 0 <= rate.per_s() <= total / (window_s * (STEPS - 1) / STEPS) * (1 + 1e-6)
