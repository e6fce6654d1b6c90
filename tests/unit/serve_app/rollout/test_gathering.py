from __future__ import annotations

from collections import Counter

import pytest

from serve_app.rollout.criteria import SHORT_S
from serve_app.rollout.gathering import AWAY_S, FORGET_S, LONG_S, Gathering
from serve_app.rollout.histogram import Histogram
from serve_app.rollout.telemetry import Outcome, RouterReport, ShadowStats, VariantKey, VariantStats, Waiting

CANARY: VariantKey = ("chat", "canary")


def ok(count: int) -> VariantStats:
    return VariantStats(outcomes=Counter({Outcome.OK: count}))


def report(seq: int = 1, *, router: str = "a", count: int = 1, waits_s: tuple[float, ...] = (), table: int = 1) -> RouterReport:
    waiting = Waiting()
    for each in waits_s:
        waiting.whole.observe(each)
    return RouterReport(router, seq, table, {CANARY: ok(count)}, {CANARY: waiting}, {CANARY: ShadowStats(copied=count)})


def gathering(*reports: RouterReport) -> Gathering:
    made = Gathering()
    for each in reports:
        made.take(each, now_s=0.0)
    made.tick(now_s=0.0)
    return made


def test_reports_of_all_routers_add_up() -> None:
    made = gathering(report(count=2), report(router="b", count=3), report(2, count=4))
    assert (made.latest(CANARY), made.total(CANARY), made.shadows) == (ok(9), ok(9), {CANARY: ShadowStats(copied=9)})


def test_a_report_that_is_repeated_counts_once() -> None:
    assert gathering(report(count=2), report(count=2)).total(CANARY) == ok(2)


def test_a_report_of_a_router_that_was_long_silent_counts_once() -> None:
    made = gathering(report(count=2))
    made.tick(now_s=AWAY_S + 1)
    made.take(report(count=2), now_s=AWAY_S + 2)
    made.take(report(2, count=3), now_s=AWAY_S + 3)
    made.tick(now_s=AWAY_S + 3)
    assert (made.total(CANARY), made.tables()) == (ok(5), {"a": 1})


def test_routers_are_forgotten_in_the_end() -> None:
    made = gathering(report())
    made.tick(now_s=AWAY_S + 1)
    made.tick(now_s=FORGET_S + 1)
    assert (made._routers, made._away) == ({}, {})


def test_what_a_report_brings_shows_from_the_next_tick_on() -> None:
    made = Gathering()
    made.take(report(), now_s=0.0)
    assert (made.latest(CANARY), made.total(CANARY)) == (VariantStats(), VariantStats())
    made.tick(now_s=1.0)
    assert (made.latest(CANARY), made.total(CANARY)) == (ok(1), ok(1))


def test_a_tick_without_reports_is_empty() -> None:
    made = gathering(report())
    made.tick(now_s=1.0)
    assert (made.latest(CANARY), made.total(CANARY)) == (VariantStats(), ok(1))


@pytest.mark.parametrize(("last_s", "count"), [(SHORT_S, 5), (LONG_S, 60)], ids=["short", "long"])
def test_a_window_holds_the_ticks_of_its_time(last_s: float, count: int) -> None:
    made = Gathering()
    for second in range(100):
        made.take(report(second + 1), now_s=float(second))
        made.tick(now_s=float(second))
    assert (made.window(CANARY, last_s=last_s, now_s=99.0), made.total(CANARY)) == (ok(count), ok(100))


def test_ticks_that_no_window_holds_are_dropped() -> None:
    made = Gathering()
    for second in range(200):
        made.take(report(second + 1), now_s=float(second))
        made.tick(now_s=float(second))
    assert len(made._series[CANARY].ticks) == LONG_S + 1


def test_a_variant_nobody_spoke_of_has_nothing() -> None:
    made = gathering()
    empty = VariantStats()
    assert (made.latest(CANARY), made.window(CANARY, last_s=5.0, now_s=0.0), made.total(CANARY)) == (empty, empty, empty)
    assert made.waiting(CANARY) == Waiting()


def test_open_attempts_are_those_of_each_routers_last_report() -> None:
    made = gathering(report(waits_s=(1.0, 2.0)), report(2, waits_s=(3.0,)), report(router="b", waits_s=(4.0,)))
    expected = Histogram()
    expected.observe(3.0)
    expected.observe(4.0)
    assert made.waiting(CANARY) == Waiting(whole=expected)


def test_a_repeated_report_still_tells_what_is_open_now() -> None:
    made = gathering(report(waits_s=(1.0,)), report(waits_s=(9.0, 9.0)))
    assert made.waiting(CANARY).whole.total == 2


def test_a_router_that_falls_silent_has_nothing_open_any_more() -> None:
    made = gathering(report(waits_s=(1.0,)))
    made.tick(now_s=AWAY_S)
    assert (made.waiting(CANARY).whole.total, made.tables()) == (1, {"a": 1})
    made.tick(now_s=AWAY_S + 0.1)
    assert (made.waiting(CANARY).whole.total, made.tables()) == (0, {})


def holding(router: str, count: int, *, seq: int = 1) -> RouterReport:
    return RouterReport(router, seq, 1, {}, {}, held={CANARY: count})


def test_what_all_routers_hold_adds_up_by_their_last_reports() -> None:
    made = gathering(holding("a", 2), holding("b", 3), holding("a", 1, seq=2))
    assert made.held(now_s=AWAY_S) == {CANARY: 4}


def test_a_router_that_falls_silent_holds_nothing_any_more_whether_or_not_a_tick_has_noticed() -> None:
    made = gathering(holding("a", 2))
    made.take(holding("b", 3), now_s=5.0)
    assert made.held(now_s=AWAY_S + 1) == {CANARY: 3}
    made.tick(now_s=AWAY_S + 1)
    assert made.held(now_s=AWAY_S + 1) == {CANARY: 3}


def test_each_router_says_which_table_it_has() -> None:
    assert gathering(report(router="b", table=3), report(table=2)).tables() == {"a": 2, "b": 3}


def test_a_report_is_not_changed_by_those_that_follow() -> None:
    first = report(count=2)
    gathering(first, report(2, count=3))
    assert first == report(count=2)


def test_variants_that_are_gone_can_be_forgotten() -> None:
    made = gathering(report())
    made.forget({("chat", "stable")})
    assert (made.total(CANARY), made.shadows) == (VariantStats(), {})


def test_variants_that_stay_are_not_forgotten() -> None:
    made = gathering(report())
    made.forget({CANARY})
    assert (made.total(CANARY), made.shadows) == (ok(1), {CANARY: ShadowStats(copied=1)})
