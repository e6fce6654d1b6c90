from __future__ import annotations

import pytest

from serve_app.pace import KEEP_S, WINDOW_S, Pace
from tests.unit.serve_app.fakes import FakeClock

PRIORITY = 5


class Busy:
    """A variant that somebody always waits for."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.pace = Pace(self.clock)
        self.pace.join(PRIORITY)

    def go(self, seconds: float, *, every_s: float, joining: dict[int, int] | None = None) -> None:
        """Hand a place on every so often; for each, so many begin to wait, by priority."""
        for _ in range(round(seconds / every_s)):
            self.clock.now_s += every_s
            self.pace.hand_on()
            for priority, count in (joining or {}).items():
                for _ in range(count):
                    self.pace.join(priority)

    def per_s(self, priority: int = PRIORITY, *, places: int = 1) -> float | None:
        return self.pace.per_s(priority, places=places)


@pytest.mark.parametrize("every_s", [0.01, 0.1, 1.0, 5.0], ids=["fast", "ten-a-second", "one-a-second", "slow"])
def test_the_pace_is_places_per_second(every_s: float) -> None:
    busy = Busy()
    busy.go(50, every_s=every_s)
    assert busy.per_s() == pytest.approx(1 / every_s, rel=0.01)


def test_nothing_is_known_before_a_place_came_free() -> None:
    busy = Busy()
    busy.clock.now_s += 20
    assert busy.per_s() is None


def test_a_place_in_the_first_moment_says_nothing_yet() -> None:
    busy = Busy()
    busy.go(0.5, every_s=0.1)
    assert busy.per_s() is None
    busy.go(1.2, every_s=0.1)
    assert busy.per_s() == pytest.approx(10)


def test_nothing_is_known_before_as_many_places_went_round_as_there_are() -> None:
    busy = Busy()
    busy.go(3, every_s=0.1)
    assert busy.per_s(places=50) is None
    busy.go(4, every_s=0.1)
    assert busy.per_s(places=50) == pytest.approx(10)


def test_the_first_round_does_not_count() -> None:
    busy = Busy()
    busy.go(20, every_s=1)
    busy.go(1.6, every_s=0.1)
    assert busy.per_s(places=20) == pytest.approx(10)


def test_a_minute_of_waiting_is_enough_whatever_went_round() -> None:
    busy = Busy()
    busy.go(KEEP_S, every_s=2)
    assert busy.per_s(places=1000) == pytest.approx(0.5)


@pytest.mark.parametrize(("before_s", "after_s"), [(0.01, 0.1), (0.1, 0.01)], ids=["less", "more"])
def test_a_change_of_capacity_shows_within_the_window(before_s: float, after_s: float) -> None:
    busy = Busy()
    busy.go(30, every_s=before_s)
    busy.go(WINDOW_S + 0.5, every_s=after_s)
    assert busy.per_s() == pytest.approx(1 / after_s, rel=0.05)


def test_a_pace_that_ends_fades() -> None:
    busy = Busy()
    busy.go(10, every_s=0.1)
    seen = []
    for _ in range(4):
        busy.clock.now_s += 10
        seen.append(busy.per_s() or 0.0)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] < 2
    busy.clock.now_s += KEEP_S
    assert busy.per_s() is None


def test_time_in_which_nobody_waits_does_not_count() -> None:
    busy = Busy()
    for _ in range(10):
        busy.go(1, every_s=0.1)
        busy.pace.rest()
        busy.clock.now_s += 4
        busy.pace.join(PRIORITY)
    assert busy.per_s() == pytest.approx(10)


def test_what_was_long_ago_is_forgotten() -> None:
    busy = Busy()
    busy.go(10, every_s=0.1)
    busy.pace.rest()
    busy.clock.now_s += KEEP_S + 1
    busy.pace.join(PRIORITY)
    busy.go(2, every_s=0.1)
    assert busy.per_s(places=50) is None


def test_after_a_standstill_the_pace_is_that_of_now() -> None:
    busy = Busy()
    busy.go(10, every_s=0.1)
    busy.clock.now_s += 40
    busy.per_s()  # looked at meanwhile
    busy.go(2, every_s=0.1)
    assert busy.per_s() == pytest.approx(10, rel=0.2)


def test_what_higher_priorities_take_does_not_come_to_a_lower_one() -> None:
    busy = Busy()
    busy.go(10, every_s=0.1, joining={9: 0, 5: 1})
    assert [busy.per_s(priority) for priority in (9, 5)] == [pytest.approx(10), pytest.approx(10)]
    for _ in range(20):
        busy.go(0.4, every_s=0.1)
        busy.pace.join(9)  # a quarter of the places
    assert busy.per_s(5) == pytest.approx(7.5, rel=0.05)
    assert busy.per_s(9) == pytest.approx(10, rel=0.05)


def test_one_place_in_a_hundred_is_left_for_whoever_is_lowest() -> None:
    busy = Busy()
    busy.go(10, every_s=0.1, joining={9: 2})
    assert busy.per_s(0) == pytest.approx(0.1)


def test_after_a_restart_nothing_is_known() -> None:
    busy = Busy()
    busy.go(10, every_s=0.1)
    busy.pace.restart()
    busy.clock.now_s += 3
    assert busy.per_s() is None
    busy.go(2, every_s=0.1)
    assert busy.per_s() == pytest.approx(10)  # without the time until the first place
