from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.reports import FORGET_S, STALE_S, Reports, Sums
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


def test_the_newest_reports_of_all_replicas_are_summed() -> None:
    a = {WAITING: 3.0, RUNNING: 8.0, SLOTS: 8.0, ARRIVED: 50.0, KV_CACHE: 0.25, OPEN: 11.0}
    b = {WAITING: 1.0, RUNNING: 4.0, SLOTS: 16.0, ARRIVED: 20.0, KV_CACHE: 0.75, OPEN: 5.0}
    reports = Reports()
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
    reports, good = Reports(), {WAITING: 1.0, RUNNING: 2.0, SLOTS: 8.0, ARRIVED: 5.0, KV_CACHE: 0.1, OPEN: 3.0}
    before = reports.take(said(1.0, a=good), ["a"], now_s=1.0)
    assert reports.take(said(2.0, a={**good, name: bad}), ["a"], now_s=2.0) == before
    assert reports.arrived == 5
    assert Reports().take(said(a={**good, name: bad}), ["a"], now_s=0.0) == NOTHING


def test_a_replica_that_misses_reports_keeps_its_last_word_and_is_silent_in_the_end() -> None:
    reports, report = Reports(), said(a={WAITING: 4.0})
    raws = {0.0: report, STALE_S: None, STALE_S + 1: report, FORGET_S: {}}
    seen = [reports.take(raw, ["a"], now_s=at_s) for at_s, raw in raws.items()]
    assert [(sums.heard, sums.silent, sums.waiting) for sums in seen] == [(1, 0, 4), (1, 0, 4), (0, 1, 4), (0, 1, 4)]


def test_a_replica_that_has_said_nothing_for_minutes_is_forgotten() -> None:
    reports = Reports()
    reports.take(said(a={WAITING: 4.0}), ["a"], now_s=0.0)
    assert reports.take(None, ["a"], now_s=FORGET_S + 1) == NOTHING


def test_a_report_counts_once() -> None:
    reports, report = Reports(), said(5.0, a={WAITING: 0.0, ARRIVED: 7.0})
    for now_s in range(10):
        reports.take(report, ["a"], now_s=now_s)
    reports.take(said(6.0, a={WAITING: 0.0, ARRIVED: 9.0}), ["a"], now_s=10.0)
    assert reports.arrived == 9


@pytest.mark.xfail(
    strict=True, reason="a stamp is forgotten after FORGET_S: the look after that takes the old report for a new one"
)
def test_a_report_that_stays_the_same_for_minutes_counts_once() -> None:
    reports, report = Reports(), said(5.0, a={WAITING: 3.0, ARRIVED: 7.0})
    sums = [reports.take(report, ["a"], now_s=now_s) for now_s in range(0, 3 * int(FORGET_S), 10)]
    assert reports.arrived == 7
    assert sum(each.heard for each in sums) == 2  # at 0 and 10 s


def test_requests_of_a_replica_that_is_gone_stay_counted_and_its_load_does_not() -> None:
    reports = Reports()
    both = said(1.0, a={WAITING: 1.0, ARRIVED: 7.0}, b={WAITING: 2.0, ARRIVED: 5.0})
    reports.take(both, ["a", "b"], now_s=1.0)
    assert reports.take(both, ["b"], now_s=2.0) == Sums(heard=1, waiting=2)
    assert reports.arrived == 12


def test_a_replica_that_leaves_the_list_for_a_moment_brings_only_what_is_new() -> None:
    reports = Reports()
    for at_s, arrived, replicas in ((1.0, 7.0, ["a"]), (2.0, 8.0, []), (3.0, 9.0, ["a"])):
        reports.take(said(at_s, a={WAITING: 0.0, ARRIVED: arrived}), replicas, now_s=at_s)
    assert reports.arrived == 9


def test_a_counter_that_starts_again_takes_nothing_back_and_goes_on() -> None:
    reports, arrived = Reports(), []
    for at_s, count in enumerate([10.0, 2.0, 5.0]):
        reports.take(said(float(at_s), a={WAITING: 0.0, ARRIVED: count}), ["a"], now_s=at_s)
        arrived.append(reports.arrived)
    assert arrived == [10, 10, 13]


@pytest.mark.xfail(strict=True, reason="after FORGET_S its counter is forgotten too, and comes again as a burst of arrivals")
def test_a_replica_that_speaks_again_after_minutes_brings_only_what_is_new() -> None:
    reports = Reports()
    for at_s, arrived in ((0.0, 1000.0), (FORGET_S + 1, 1010.0)):
        reports.take(None, ["a"], now_s=at_s - 0.5)
        reports.take(said(at_s, a={WAITING: 0.0, ARRIVED: arrived}), ["a"], now_s=at_s)
    assert reports.arrived == 1010


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
        sums = reports.take(said(now_s, **{r: {WAITING: 1.0, ARRIVED: n} for r, n in counts.items()}), counts, now_s=now_s)
        assert reports.arrived >= before
        assert (sums.heard, sums.waiting) == (len(counts), len(counts)) or step_s == 0
        before = reports.arrived
