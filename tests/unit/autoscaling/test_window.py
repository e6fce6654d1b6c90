from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.window import FIRST_GUESS_S, MOST_STARTUP_S, REMEMBERED, Extreme, Startup

STEPS_S = st.integers(0, 50)  # whole seconds: no rounding at the edge of a window
VALUES = st.lists(st.tuples(STEPS_S, st.integers(-100, 100)), min_size=1, max_size=60)
LOOKS = st.lists(st.tuples(STEPS_S, st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


@given(values=VALUES, window_s=st.integers(0, 100), is_max=st.booleans())
def test_the_extreme_is_that_of_all_values_of_the_window(values: list[tuple[int, int]], window_s: int, *, is_max: bool) -> None:
    extreme, all_values = Extreme(is_max=is_max), []
    for now_s, (_, value) in zip(accumulate(step_s for step_s, _ in values), values, strict=True):
        all_values.append((now_s, value))
        of_window = [each for at_s, each in all_values if at_s >= now_s - window_s]
        assert extreme.add(now_s, value, window_s=window_s) == (max if is_max else min)(of_window)


def test_a_window_is_covered_when_values_have_come_as_long() -> None:
    extreme = Extreme(is_max=True)
    assert not extreme.covers(100.0, 0.0)
    extreme.add(100.0, 1, window_s=5.0)
    assert [extreme.covers(at_s, 5.0) for at_s in (100.0, 104.9, 105.0, 200.0)] == [False, False, True, True]


def by_hand(looks: list[tuple[int, int, int]]) -> list[float]:
    """Return how long replicas took: asked for one by one, the oldest serves first, the newest is taken back first.

    One that is asked for and serves within a look tells nothing.
    """
    now_s = 0
    asked: list[int] = []
    took: list[float] = []
    target, ready = looks[0][1:]
    for step_s, new_target, new_ready in looks[1:]:
        now_s += step_s
        more = max(0, new_ready - ready)
        unknown = max(0, more - len(asked))
        took += [float(now_s - at_s) for at_s in asked[:more]]
        asked = asked[more:] + [now_s] * (new_target - target - unknown)
        asked = asked[: max(0, new_target - new_ready)]
        target, ready = new_target, new_ready
    return took


@given(looks=LOOKS)
def test_the_start_time_is_the_third_quartile_of_the_last_ones(looks: list[tuple[int, int, int]]) -> None:
    startup = Startup()
    for now_s, (_, target, ready) in zip(accumulate([0, *(step_s for step_s, _, _ in looks[1:])]), looks, strict=True):
        startup.see(now_s, target, ready)
    last = sorted(by_hand(looks)[-REMEMBERED:])
    assert startup.seconds == (last[len(last) * 3 // 4] if last else FIRST_GUESS_S)


def test_what_was_starting_at_the_first_look_says_nothing() -> None:
    startup = Startup()
    startup.see(0.0, 3, 1)
    startup.see(5.0, 3, 3)
    assert startup.seconds == FIRST_GUESS_S


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([(0.0, 0, 0), (40.0, 1, 1)], id="woken-by-serve"),
        pytest.param([(0.0, 1, 1), (1.0, 3, 3)], id="two-in-one-look"),
        pytest.param([(0.0, 1, 1), (1.0, 2, 2), (2.0, 1, 1), (300.0, 2, 2)], id="again-and-again"),
    ],
)
def test_replicas_that_serve_in_the_look_that_sees_them_asked_for_say_nothing(looks: list[tuple[float, int, int]]) -> None:
    startup = Startup()
    for look in looks:
        startup.see(*look)
    assert (startup.seconds, startup.remaining_s(400.0, 60.0)) == (FIRST_GUESS_S, 60.0)


def test_of_those_asked_for_in_a_look_that_sees_some_serve_the_others_are_measured() -> None:
    startup = Startup()
    for look in ((0.0, 0, 0), (40.0, 3, 1), (70.0, 3, 3)):
        startup.see(*look)
    assert startup.seconds == 30.0


def test_a_replica_that_is_replaced_says_nothing() -> None:
    startup = Startup()
    for at_s, ready in ((0.0, 3), (10.0, 2), (200.0, 3)):
        startup.see(at_s, 3, ready)
    assert startup.seconds == FIRST_GUESS_S


def test_a_start_that_took_days_counts_as_an_hour() -> None:
    startup = Startup()
    for at_s, target, ready in ((0.0, 1, 1), (1.0, 2, 1), (1e6, 2, 2)):
        startup.see(at_s, target, ready)
    assert startup.seconds == MOST_STARTUP_S


@pytest.mark.parametrize(
    ("looks", "remaining_s"),
    [
        pytest.param([(0.0, 1, 1)], 60.0, id="none-starts"),
        pytest.param([(0.0, 1, 1), (10.0, 2, 1)], 40.0, id="one-starts"),
        pytest.param([(0.0, 1, 1), (10.0, 2, 1), (20.0, 3, 1)], 40.0, id="the-first-counts"),
        pytest.param([(0.0, 1, 1), (10.0, 2, 1), (20.0, 1, 1)], 60.0, id="taken-back"),
        pytest.param([(-90.0, 1, 1), (-80.0, 2, 1)], 0.0, id="late"),
    ],
)
def test_what_remains_until_the_first_one_serves(looks: list[tuple[float, int, int]], remaining_s: float) -> None:
    startup = Startup()
    for look in looks:
        startup.see(*look)
    assert startup.remaining_s(30.0, 60.0) == remaining_s
