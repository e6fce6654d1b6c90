from __future__ import annotations

import asyncio
import logging

import pytest

from serve_app.errors import RateLimited, Unavailable
from serve_app.limits import admission as admission_module
from serve_app.limits.admission import EscrowAdmission
from serve_app.limits.ledger import SILENT_S, Ledger
from serve_app.limits.messages import Message, Reply
from serve_app.limits.permit import UNLIMITED, Permit
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import FakeClock, turns
from tests.unit.serve_app.limits.escrow import caller

LIMITED = caller(requests_per_minute=30, tokens_per_minute=600, concurrent_requests=20)


class Wire:
    """A settled ledger that answers, or fails with ``error``, or never answers."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ledger = Ledger(epoch="one", clock=self.clock)
        self.clock.now_s += SILENT_S
        self.messages: list[Message] = []
        self.error: Exception | None = None
        self.is_stuck = False

    async def exchange(self, message: Message) -> Reply:
        self.messages.append(message)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if self.is_stuck:
            await asyncio.Event().wait()
        return self.ledger.exchange(message)


class Kept:
    """An admission whose exchanges run."""

    def __init__(self, wire: Wire, *, is_on: bool = True) -> None:
        self.admission = EscrowAdmission(wire.exchange, router="r0", clock=wire.clock)
        self._task = asyncio.create_task(self.admission.keep(lambda: is_on))

    async def __aenter__(self) -> EscrowAdmission:
        return self.admission

    async def __aexit__(self, *_: object) -> None:
        assert not self._task.done()
        self._task.cancel()
        await asyncio.wait([self._task])


async def test_a_caller_without_limits_asks_nobody() -> None:
    wire = Wire()
    async with Kept(wire) as admission:
        assert await admission.admit(ANONYMOUS) is UNLIMITED
    assert wire.messages == []
    UNLIMITED.charge(5)
    UNLIMITED.release()


async def test_requests_that_wait_together_are_answered_by_one_exchange() -> None:
    wire = Wire()
    async with Kept(wire) as admission:
        permits = await asyncio.gather(*(admission.admit(LIMITED) for _ in range(10)))
    assert len(permits) == 10
    assert len(wire.messages) == 1


async def test_no_more_are_admitted_than_the_limit_and_the_rest_hear_why() -> None:
    wire = Wire()
    async with Kept(wire) as admission:
        answers = await asyncio.gather(*(admission.admit(LIMITED) for _ in range(60)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, RateLimited)]
        assert (len(refused), refused[0].retry_after_s) == (40, 1)
        assert "20 concurrent requests" in refused[0].message
        assert dict(refused[0].headers)["x-ratelimit-remaining-requests"] == "10"
        for answer in answers:
            if isinstance(answer, Permit):
                answer.release()
                answer.release()  # counts once
        again = await asyncio.gather(*(admission.admit(LIMITED) for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(answer, Permit) for answer in again) == 10


async def test_a_ledger_that_fails_leaves_the_router_alone_and_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    async with Kept(wire) as admission:
        await admission.exchange()
        wire.error = OSError("gone")
        with caplog.at_level(logging.INFO, logger="ray.serve"):
            for _ in range(2):
                with pytest.raises(RateLimited):
                    await admission.admit(LIMITED)
                await admission.exchange()
            wire.clock.now_s += 4
            assert isinstance(await admission.admit(LIMITED), Permit)
            wire.error = None
            await admission.exchange()
        assert caplog.text.count("does not answer (gone)") == 1
        assert caplog.text.count("answers again") == 1
        assert isinstance(await admission.admit(LIMITED), Permit)


async def test_a_ledger_that_never_answered_makes_a_limited_caller_wait_for_it() -> None:
    wire = Wire()
    wire.error = OSError()
    async with Kept(wire) as admission:
        with pytest.raises(Unavailable, match="not known here yet"):
            await admission.admit(LIMITED)


async def test_an_exchange_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "EXCHANGE_TIMEOUT_S", 0.01)
    wire = Wire()
    async with Kept(wire) as admission:
        await admission.exchange()
        wire.is_stuck = True
        with pytest.raises(RateLimited):
            await admission.admit(LIMITED)


async def test_without_keys_there_is_no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "SYNC_S", 0.001)
    wire = Wire()
    async with Kept(wire, is_on=False):
        await asyncio.sleep(0.02)
    assert wire.messages == []
    async with Kept(wire):
        await asyncio.sleep(0.02)
    assert wire.messages != []


async def test_a_request_that_is_cancelled_while_it_waits_holds_nothing() -> None:
    wire = Wire()
    async with Kept(wire) as admission:
        wire.is_stuck = True
        waiting = asyncio.create_task(admission.admit(LIMITED))
        await turns()
        waiting.cancel()
        await asyncio.wait([waiting])
        held = admission._book.holding(LIMITED)
        assert (held.waiting, held.in_use) == (0, 0)
