from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.reports import FORGET_S, FOUND_S, STALE_S, Reports, Sums
from autoscaling.signals import ARRIVED, KV_CACHE, OPEN, RUNNING, SLOTS, WAITING

NOTHING = Sums()


@dataclass(frozen=True)
class Sample:
    timestamp: float
    value: float


Said = Mapping[str, Mapping[str, list[Sample]]]


def said(at_s: float = 0.0, **replicas: dict[str, float]) -> Said:
    """Return what replicas reported, as Serve has it: by signal, an older sample before the newest."""
    names = {name for values in replicas.values() for name in values}
    return {
        name: {r: [Sample(-1.0, 99.0), Sample(at_s, values[name])] for r, values in replicas.items() if name in values}
        for name in names
    }


def begun() -> Reports:
    """Return reports whose first looks, long ago, found no replica: all that comes to one is an arrival."""
    reports = Reports()
    reports.take(None, [], now_s=-2 * FOUND_S)
    return reports


def test_the_newest_reports_of_all_replicas_are_summed() -> None:
    a = {WAITING: 3.0, RUNNING: 8.0, SLOTS: 8.0, ARRIVED: 50.0, KV_CACHE: 0.25, OPEN: 11.0}
    b = {WAITING: 1.0, RUNNING: 4.0, SLOTS: 16.0, ARRIVED: 20.0, KV_CACHE: 0.75, OPEN: 5.0}
    reports = begun()
    sums = reports.take(said(a=a, b=b), ["a", "b"], now_s=0.0)
    assert sums == Sums(heard=2, silent=0, waiting=4, running=12, slots=16, kv_cache=0.5)
    assert reports.arrived == 70


@pytest.mark.parametrize("raw", [None, {}, {WAITING: {}}, {RUNNING: {"a": [Sample(0.0, 3.0)]}}, {WAITING: {"a": []}}])
def test_a_replica_that_says_nothing_is_neither_heard_nor_silent(raw: Said | None) -> None:
    assert Reports().take(raw, ["a"], now_s=0.0) == NOTHING


def test_a_stage_that_reports_less_is_read_as_far_as_it_does() -> None:
    assert Reports().take(said(a={WAITING: 2.0}), ["a"], now_s=0.0) == Sums(heard=1, waiting=2)


def test_requests_open_on_the_port_count_before_the_engine_knows_them() -> None:
    assert Reports().take(said(a={WAITING: 2.0, RUNNING: 3.0, OPEN: 9.0}), ["a"], now_s=0.0).running == 7


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", [WAITING, RUNNING, SLOTS, ARRIVED, KV_CACHE, OPEN])
def test_a_report_with_no_number_leaves_the_one_before(name: str, bad: float) -> None:
    reports, good = begun(), {WAITING: 1.0, RUNNING: 2.0, SLOTS: 8.0, ARRIVED: 5.0, KV_CACHE: 0.1, OPEN: 3.0}
    before = reports.take(said(1.0, a=good), ["a"], now_s=1.0)
    assert reports.take(said(2.0, a={**good, name: bad}), ["a"], now_s=2.0) == before
    assert reports.arrived == 5
    assert Reports().take(said(a={**good, name: bad}), ["a"], now_s=0.0) == NOTHING


def test_a_replica_that_misses_reports_keeps_its_last_word_and_is_silent_in_the_end() -> None:
    reports, report = Reports(), said(a={WAITING: 4.0})
    raws = {0.0: report, STALE_S: None, STALE_S + 1: report, FORGET_S: {}}
    seen = [reports.take(raw, ["a"], now_s=at_s) for at_s, raw in raws.items()]
    assert [(sums.heard, sums.silent, sums.waiting) for sums in seen] == [(1, 0, 4), (1, 0, 4), (0, 1, 4), (0, 1, 4)]


@pytest.mark.parametrize("silent_s", [FORGET_S + 1, 1e6])
def test_a_replica_that_says_nothing_any_more_counts_as_silent_while_it_is_listed(silent_s: float) -> None:
    reports = Reports()
    reports.take(said(a={WAITING: 4.0}), ["a"], now_s=0.0)
    for at_s in (0.5 * silent_s, silent_s):
        assert reports.take(None, ["a"], now_s=at_s) == Sums(silent=1, waiting=4)


@pytest.mark.parametrize("late_s", [0, 1, 200], ids=["at-once", "late", "very-late"])
def test_what_came_to_the_replicas_of_the_first_look_before_they_spoke_is_no_arrival(late_s: int) -> None:
    reports = Reports()
    for at_s in range(late_s):
        reports.take(None, ["a", "b"], now_s=at_s)
    for at_s, arrived in ((late_s, 1e6), (late_s + 1, 1e6 + 3)):
        reports.take(said(at_s, a={WAITING: 0.0, ARRIVED: arrived}, b={WAITING: 0.0}), ["a", "b"], now_s=at_s)
    assert reports.arrived == 3


def test_all_that_came_to_a_replica_that_was_added_later_is_an_arrival() -> None:
    reports, later_s = Reports(), FOUND_S + 1
    reports.take(said(0.0, a={WAITING: 0.0, ARRIVED: 100.0}), ["a"], now_s=0.0)
    both = said(later_s, a={WAITING: 0.0, ARRIVED: 102.0}, b={WAITING: 0.0, ARRIVED: 5.0})
    reports.take(both, ["a", "b"], now_s=later_s)
    assert reports.arrived == 7


@pytest.mark.parametrize("late_s", [0, int(FOUND_S)], ids=["they-speak-at-once", "they-speak-late"])
def test_replicas_that_a_new_controller_finds_one_by_one_bring_no_burst_of_arrivals(late_s: int) -> None:
    reports, arrived = Reports(), []
    for second in range(2 * int(FOUND_S)):
        found = [f"r{i}" for i in range(4) if second >= 10 * i]  # the last one at FOUND_S
        counts = {r: {WAITING: 0.0, ARRIVED: 1e6 + second} for i, r in enumerate(found) if second >= 10 * i + late_s}
        reports.take(said(second, **counts), found, now_s=second)
        arrived.append(reports.arrived)
    steps = [new - old for old, new in pairwise(arrived)]
    assert max(steps) <= 4
    assert steps[-1] >= 1
    assert reports.arrived == sum(max(0, 2 * int(FOUND_S) - 1 - 10 * i - late_s) for i in range(4))


@pytest.mark.parametrize(("found_s", "arrived"), [(FOUND_S, 2.0), (FOUND_S + 1, 7.0)], ids=["still", "no-longer"])
def test_for_a_while_after_the_first_look_what_a_replica_had_before_is_no_arrival(found_s: float, arrived: float) -> None:
    reports = Reports()
    reports.take(None, [], now_s=0.0)
    for at_s, count in ((found_s, 5.0), (found_s + 1, 7.0)):
        reports.take(said(at_s, a={WAITING: 0.0, ARRIVED: count}), ["a"], now_s=at_s)
    assert reports.arrived == arrived


def test_a_report_counts_once() -> None:
    reports, report = begun(), said(5.0, a={WAITING: 0.0, ARRIVED: 7.0})
    for now_s in range(10):
        reports.take(report, ["a"], now_s=now_s)
    reports.take(said(6.0, a={WAITING: 0.0, ARRIVED: 9.0}), ["a"], now_s=10.0)
    assert reports.arrived == 9


def test_a_report_that_stays_the_same_for_minutes_counts_once() -> None:
    reports, report = begun(), said(5.0, a={WAITING: 3.0, ARRIVED: 7.0})
    sums = [reports.take(report, ["a"], now_s=now_s) for now_s in range(0, 3 * int(FORGET_S), 10)]
    assert reports.arrived == 7
    assert sum(each.heard for each in sums) == 2  # at 0 and 10 s


def test_requests_of_a_replica_that_is_gone_stay_counted_and_its_load_does_not() -> None:
    reports = begun()
    both = said(1.0, a={WAITING: 1.0, ARRIVED: 7.0}, b={WAITING: 2.0, ARRIVED: 5.0})
    reports.take(both, ["a", "b"], now_s=1.0)
    assert reports.take(both, ["b"], now_s=2.0) == Sums(heard=1, waiting=2)
    assert reports.arrived == 12


def test_a_replica_that_leaves_the_list_for_a_moment_brings_only_what_is_new() -> None:
    reports = begun()
    for at_s, arrived, replicas in ((1.0, 7.0, ["a"]), (2.0, 8.0, []), (3.0, 9.0, ["a"])):
        reports.take(said(at_s, a={WAITING: 0.0, ARRIVED: arrived}), replicas, now_s=at_s)
    assert reports.arrived == 9


def test_a_counter_that_starts_again_takes_nothing_back_and_goes_on() -> None:
    reports, arrived = begun(), []
    for at_s, count in enumerate([10.0, 2.0, 5.0]):
        reports.take(said(float(at_s), a={WAITING: 0.0, ARRIVED: count}), ["a"], now_s=at_s)
        arrived.append(reports.arrived)
    assert arrived == [10, 10, 13]


def test_a_replica_that_speaks_again_after_minutes_brings_only_what_is_new() -> None:
    reports = begun()
    for at_s, arrived in ((0.0, 1000.0), (FORGET_S + 1, 1010.0)):
        reports.take(None, ["a"], now_s=at_s - 0.5)
        reports.take(said(at_s, a={WAITING: 0.0, ARRIVED: arrived}), ["a"], now_s=at_s)
    assert reports.arrived == 1010


def test_a_silent_replica_that_leaves_the_list_for_a_moment_brings_only_what_is_new() -> None:
    reports, report = begun(), said(1.0, a={WAITING: 0.0, ARRIVED: 1000.0})
    silent_s = int(FORGET_S) + 10
    for at_s in range(1, silent_s):
        reports.take(report, ["a"], now_s=at_s)
    reports.take(report, [], now_s=silent_s)
    sums = reports.take(report, ["a"], now_s=silent_s + 1)
    assert (sums.heard, reports.arrived) == (0, 1000)


@given(
    looks=st.lists(
        st.tuples(st.integers(0, 100), st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e6))),
        max_size=30,
    )
)
def test_the_sum_of_arrivals_never_falls_and_only_running_replicas_count(
    looks: list[tuple[int, dict[str, float]]],
) -> None:
    reports, before, now_s = Reports(), 0.0, 0
    for step_s, counts in looks:
        now_s += step_s
        sums = reports.take(
            said(now_s, **{r: {WAITING: 1.0, ARRIVED: n} for r, n in counts.items()}), list(counts), now_s=now_s
        )
        assert reports.arrived >= before
        assert (sums.heard, sums.waiting) == (len(counts), len(counts)) or step_s == 0
        before = reports.arrived
