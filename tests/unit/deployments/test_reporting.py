from __future__ import annotations

import asyncio
import copy
import logging
from collections import Counter

import pytest

from deployments import reporting
from deployments.reporting import Reporter, keep_reporting
from serve_app.gateway import Gateway
from serve_app.rollout.gathering import Gathering
from serve_app.rollout.telemetry import Outcome, RouterReport
from tests.unit.serve_app.fakes import FakeClock, document, entry, gateway, model, snapshot, turns, until

CANARY = ("chat", "canary")
TWO = document(models=(model(("stable", 90), ("canary", 10)),))


class Rollouts:
    """Takes reports; ``fails`` says before or after which of them it is away."""

    def __init__(self, *fails: str) -> None:
        self.fails = list(fails)
        self.reports: list[RouterReport] = []
        self.gathering = Gathering()

    async def report(self, report: RouterReport) -> None:
        failing = self.fails.pop(0) if self.fails else ""
        if failing == "before":
            raise OSError("away")
        self.reports.append(copy.deepcopy(report))
        self.gathering.take(report, now_s=0.0)
        if failing == "after":
            raise OSError("the answer was lost")

    def total(self) -> Counter[Outcome]:
        self.gathering.tick(now_s=0.0)
        return self.gathering.total(CANARY).outcomes


def followed() -> Gateway:
    made = gateway()
    made.update(snapshot(routing=TWO))
    return made


def answer(made: Gateway, outcome: Outcome = Outcome.OK) -> None:
    made.attempts.begin(CANARY, began_s=made.attempts.clock(), is_stream=False).end(outcome)


async def test_a_report_tells_what_was_counted_since_the_last_one() -> None:
    made, rollouts = followed(), Rollouts()
    reporter = Reporter(made, router="r")
    for outcome in (Outcome.OK, Outcome.BROKEN):
        answer(made, outcome)
        await reporter.send(rollouts.report)
    told = [(r.router, r.seq, r.table_version, r.stats[CANARY].outcomes) for r in rollouts.reports]
    assert told == [("r", 1, 0, Counter({Outcome.OK: 1})), ("r", 2, 0, Counter({Outcome.BROKEN: 1}))]


async def test_a_router_with_nothing_to_tell_says_that_it_is_there() -> None:
    rollouts = Rollouts()
    await Reporter(followed(), router="r").send(rollouts.report)
    assert [(r.seq, r.stats, r.shadows) for r in rollouts.reports] == [(1, {}, {})]


@pytest.mark.parametrize("failing", ["before", "after"], ids=["never-arrived", "answer-was-lost"])
async def test_a_report_that_was_not_taken_is_sent_again_before_anything_newer(failing: str) -> None:
    made, rollouts = followed(), Rollouts(failing)
    reporter = Reporter(made, router="r")
    answer(made)
    with pytest.raises(OSError, match=r"away|lost"):
        await reporter.send(rollouts.report)
    answer(made)
    answer(made)
    for _ in range(2):
        await reporter.send(rollouts.report)
    told = [(r.seq, r.stats[CANARY].outcomes[Outcome.OK]) for r in rollouts.reports]
    assert told == [(1, 1)] * (1 if failing == "before" else 2) + [(2, 2)]


async def test_nothing_is_lost_or_doubled_whatever_fails() -> None:
    made, rollouts = followed(), Rollouts("before", "after", "", "after", "after", "before")
    reporter = Reporter(made, router="r")
    for _ in range(12):
        answer(made)
        try:
            await reporter.send(rollouts.report)
        except OSError:
            continue
    await reporter.send(rollouts.report)
    assert rollouts.total() == Counter({Outcome.OK: 12})


async def test_only_variants_that_share_traffic_are_watched_for_hangs() -> None:
    clock = FakeClock()
    made, rollouts = gateway(clock=clock), Rollouts()
    made.update(snapshot(routing=document(models=(*TWO.models, model(("only", 100), name="other")))))
    for key in (("chat", "stable"), ("chat", "canary"), ("other", "only")):
        made.attempts.begin(key, began_s=clock(), is_stream=True)
    clock.now_s += 3.0
    await Reporter(made, router="r").send(rollouts.report)
    [report] = rollouts.reports
    assert {key: waiting.first.total for key, waiting in report.waiting.items()} == {("chat", "stable"): 1, CANARY: 1}


async def test_a_report_that_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "TIMEOUT_S", 0.0)

    async def never(report: RouterReport) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await Reporter(followed(), router="r").send(never)


async def test_reporting_goes_on_while_rollouts_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reporting, "REPORT_S", 0.0)
    monkeypatch.setattr(reporting, "REST_S", 0.0)
    made, rollouts = followed(), Rollouts("before", "before")
    answer(made)
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        keeping = asyncio.create_task(keep_reporting(Reporter(made, router="r"), rollouts.report))
        await until(lambda: len(rollouts.reports) >= 2)
        keeping.cancel()
        await asyncio.wait([keeping])
    assert rollouts.total() == Counter({Outcome.OK: 1})
    assert caplog.text.count("Rollouts does not take reports") == 1


SLEEPING = ("chat", "stable")


async def test_a_report_tells_what_waits_each_time_anew() -> None:
    made, rollouts = followed(), Rollouts("before")
    reporter = Reporter(made, router="r")
    made.needs.miss(SLEEPING)
    with pytest.raises(OSError, match="away"):
        await reporter.send(rollouts.report)
    await reporter.send(rollouts.report)
    made.pool.update([entry("r1")], is_complete=True)
    await reporter.send(rollouts.report)
    assert [report.held for report in rollouts.reports] == [{SLEEPING: 1}, {}]


async def test_a_variant_that_has_to_wake_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "REPORT_S", 3600.0)
    monkeypatch.setattr(reporting, "REST_S", 0.0)
    made, rollouts = followed(), Rollouts()
    keeping = asyncio.create_task(keep_reporting(Reporter(made, router="r"), rollouts.report))
    await turns(10)
    assert rollouts.reports == []
    made.needs.miss(SLEEPING)
    await turns(10)
    assert [report.held for report in rollouts.reports] == [{SLEEPING: 1}]
    made.needs.miss(SLEEPING)  # told already
    await turns(10)
    assert len(rollouts.reports) == 1
    keeping.cancel()
    await asyncio.wait([keeping])


async def test_reports_rest_however_much_there_is_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "REST_S", 3600.0)
    made, rollouts = followed(), Rollouts()
    made.needs.miss(SLEEPING)
    keeping = asyncio.create_task(keep_reporting(Reporter(made, router="r"), rollouts.report))
    await turns(10)
    assert rollouts.reports == []
    keeping.cancel()
    await asyncio.wait([keeping])
