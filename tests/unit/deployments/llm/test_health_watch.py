from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace

import pytest

from deployments.llm import health_watch
from deployments.llm.generation_probe import ProbeOutcome, ProbeResult
from deployments.llm.health_watch import RETRY_S, SUSPECT_AFTER, HealthWatch, Signs
from serve_app.config import HealthConfig
from tests.unit.deployments.clock import Clock
from tests.unit.serve_app.fakes import until

CONFIG = HealthConfig(probe_interval_s=60, probe_timeout_s=120, failures=2)
ANSWERED = ProbeResult(ProbeOutcome.ANSWERED)
REFUSED = ProbeResult(ProbeOutcome.REFUSED, "no such route")
FAILED = ProbeResult(ProbeOutcome.FAILED, "status 500")
LATE = ProbeResult(ProbeOutcome.LATE, "no answer")
NEW = Signs(open_requests=0, answered=0, failed_in_row=0, steps=0)


@dataclass
class Bench:
    """A watch whose signs, clock and probe a test sets."""

    config: HealthConfig = CONFIG
    clock: Clock = field(default_factory=Clock)
    signs: Signs = NEW
    result: ProbeResult = ANSWERED
    meanwhile: Signs | None = None  # the signs after a probe
    asked: int = 0

    def __post_init__(self) -> None:
        self.watch = HealthWatch(self, self.config, signs=lambda: self.signs, clock=self.clock)

    async def ask(self, timeout_s: float) -> ProbeResult:
        assert timeout_s == self.config.probe_timeout_s
        self.asked += 1
        self.signs = self.meanwhile or self.signs
        return self.result

    async def after(self, seconds: float, result: ProbeResult = ANSWERED, **signs: int) -> int:
        """Return the probes asked by a look after so many seconds."""
        self.clock.now_s += seconds
        self.signs = replace(self.signs, **signs)
        self.result = result
        before = self.asked
        await self.watch.look()
        return self.asked - before


async def started() -> Bench:
    bench = Bench()
    await bench.after(0)
    return bench


async def test_an_engine_is_probed_once_it_has_started() -> None:
    bench = Bench()
    assert [await bench.after(0), await bench.after(1)] == [1, 0]


async def test_an_idle_engine_is_probed_once_in_an_interval() -> None:
    bench = await started()
    assert [await bench.after(59), await bench.after(1), await bench.after(59), await bench.after(1)] == [0, 1, 0, 1]


async def test_traffic_that_is_answered_costs_no_probe() -> None:
    bench = await started()
    assert [await bench.after(59, answered=n, open_requests=3) for n in range(1, 9)] == [0] * 8


async def test_a_long_prompt_whose_engine_makes_steps_costs_no_probe() -> None:
    bench = await started()
    assert [await bench.after(59, steps=n, open_requests=1) for n in range(1, 9)] == [0] * 8


async def test_an_engine_that_stands_still_is_given_up_after_two_probes(caplog: pytest.LogCaptureFixture) -> None:
    bench = await started()
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        assert [await bench.after(60, LATE, open_requests=2), await bench.after(RETRY_S, LATE)] == [1, 1]
    assert "2 requests are open and nothing was done for 60 s" in caplog.text
    assert bench.watch.failure == "the engine generates nothing any more: 2 probes in a row failed; no answer"


async def test_one_failed_probe_is_no_verdict() -> None:
    bench = await started()
    await bench.after(60, FAILED)
    await bench.after(RETRY_S, ANSWERED)
    await bench.after(60, FAILED)
    assert bench.watch.failure == ""


async def test_a_probe_that_is_late_behind_requests_that_move_on_is_none() -> None:
    bench = await started()
    for steps in (40, 80, 120):
        bench.meanwhile = replace(bench.signs, steps=steps)
        assert [await bench.after(60, LATE), await bench.after(0)] == [1, 0]
    assert bench.watch.failure == ""


async def test_a_probe_that_fails_while_clients_are_answered_is_none() -> None:
    bench = await started()
    for answered in (1, 2, 3):
        bench.meanwhile = replace(bench.signs, answered=answered)
        await bench.after(60, FAILED)
    assert bench.watch.failure == ""


async def test_requests_that_fail_one_after_the_other_call_a_probe_at_once() -> None:
    bench = await started()
    assert await bench.after(RETRY_S, failed_in_row=SUSPECT_AFTER - 1) == 0
    assert await bench.after(1, FAILED, failed_in_row=SUSPECT_AFTER) == 1
    assert [await bench.after(RETRY_S - 1, FAILED), await bench.after(1, FAILED)] == [0, 1]
    assert bench.watch.failure.endswith("2 probes in a row failed; status 500")


async def test_an_answer_to_a_client_clears_a_suspicion() -> None:
    bench = await started()
    await bench.after(60, FAILED)
    assert [await bench.after(RETRY_S, FAILED, answered=1), await bench.after(59, FAILED)] == [0, 0]
    assert bench.watch.failure == ""


async def test_an_engine_that_never_answered_a_probe_is_not_given_up(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        assert [await bench.after(60, FAILED, failed_in_row=9) for _ in range(4)] == [1] * 4
    assert (bench.watch.failure, caplog.text.count("cannot be probed")) == ("", 1)


async def test_a_refusal_says_that_the_engine_lives() -> None:
    bench = await started()
    for result in (FAILED, REFUSED, FAILED):
        await bench.after(60, result)
    assert bench.watch.failure == ""


async def test_the_watch_ends_when_the_engine_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_watch, "LOOK_EVERY_S", 0)
    bench = await started()
    bench.result = FAILED
    keeping = asyncio.create_task(bench.watch.keep())
    while not keeping.done():
        bench.clock.now_s += 30
        await asyncio.sleep(0)
    assert bench.watch.failure


async def test_the_watch_outlives_signs_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health_watch, "LOOK_EVERY_S", 0)
    bench = Bench()
    seen = bench.signs
    bench.signs = None  # type: ignore[assignment]
    keeping = asyncio.create_task(bench.watch.keep())
    await until(lambda: "could not be looked after" in caplog.text)
    bench.signs = seen
    await until(lambda: bench.asked == 1)
    keeping.cancel()
