from __future__ import annotations

from serve_app.shedding import FEW, MOST_RETRY_AFTER_S, SLACK, Reason, Shedding, Standing
from tests.unit.serve_app.fakes import FakeClock

KEY = ("chat", "stable")


class Busy:
    """Shedding of a variant that gives ten places a second to those who wait."""

    def __init__(self, *, max_expected_wait_s: float = 10.0, per_s: float = 10.0) -> None:
        self.clock = FakeClock()
        self.shedding = Shedding(max_expected_wait_s=max_expected_wait_s, clock=self.clock)
        self.shedding.pace(KEY).join(5)
        for _ in range(round(20 * per_s)):
            self.clock.now_s += 1 / per_s
            self.shedding.pace(KEY).hand_on()

    def is_refused(self, ahead: int, *, left_s: float = 600.0, slack: float = 1.0, places: int | None = 8) -> bool:
        return self.shedding.judge(Standing(KEY, 5, ahead, places), left_s=left_s, slack=slack) is not None


def test_a_request_whose_place_would_come_too_late_is_refused_and_hears_when_to_come_back() -> None:
    busy = Busy()
    assert not busy.is_refused(98)
    error = busy.shedding.judge(Standing(KEY, 5, 120, 8), left_s=600)
    assert error is not None
    assert (error.retry_after_s, error.limit) == (13, "queue")
    assert error.message == (
        "model 'chat' is overloaded: 120 requests wait before this one, for about 13 s, and it may wait 10 s; try again later"
    )


def test_a_deadline_of_its_own_is_a_bound_too() -> None:
    busy = Busy()
    assert [busy.is_refused(50, left_s=left_s) for left_s in (6.0, 4.0)] == [False, True]


def test_whose_time_is_up_already_hears_so_elsewhere() -> None:
    assert not Busy().is_refused(500, left_s=0.0)


def test_zero_refuses_nobody_for_a_wait_that_is_only_expected() -> None:
    assert not Busy(max_expected_wait_s=0).is_refused(100_000, left_s=1.0)


def test_a_few_are_no_queue() -> None:
    slow = Busy(per_s=0.5, max_expected_wait_s=1.0)
    assert [slow.is_refused(ahead) for ahead in (FEW - 1, FEW)] == [False, True]


def test_a_second_is_never_too_long() -> None:
    busy = Busy(max_expected_wait_s=0.1)
    assert [busy.is_refused(ahead) for ahead in (8, 12)] == [False, True]


def test_one_who_waits_already_has_some_slack() -> None:
    busy = Busy()
    assert [busy.is_refused(110), busy.is_refused(110, slack=SLACK), busy.is_refused(130, slack=SLACK)] == [True, False, True]


def test_nobody_is_refused_while_no_place_can_be_expected() -> None:
    busy = Busy()
    assert not busy.is_refused(1000, places=None)
    busy.clock.now_s += 2
    assert not busy.is_refused(1000)  # and what was measured before says nothing of the replicas to come


def test_a_variant_without_replicas_is_forgotten() -> None:
    busy = Busy()
    busy.shedding.forget(KEY)
    busy.shedding.forget(KEY)
    assert busy.shedding.expected_s(Standing(KEY, 5, 10, 8)) is None


def test_a_wait_without_end_has_a_time_to_come_back() -> None:
    busy = Busy()
    error = busy.shedding.judge(Standing(KEY, 5, 100_000, 8), left_s=600)
    assert error is not None
    assert error.retry_after_s == MOST_RETRY_AFTER_S


def test_the_refused_are_counted_by_variant_priority_and_reason() -> None:
    busy = Busy()
    busy.is_refused(500)
    busy.is_refused(501)
    busy.shedding.count(KEY, 9, Reason.QUEUE_FULL)
    assert busy.shedding.refused == {("chat", "stable", "5", "expected_wait"): 2, ("chat", "stable", "9", "queue_full"): 1}
