from __future__ import annotations

import asyncio
import math

import pytest

from serve_app.call import Call, Reply
from serve_app.deadline import NO_DEADLINE, Deadline, deadline_from, in_time, wished_timeout
from serve_app.deadlined import deadlined
from serve_app.errors import BadRequest, DeadlineExceeded
from serve_app.observing.record import RequestOutcome, RequestRecord
from serve_app.sse import event_document
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import FakeClock
from tests.unit.serve_app.virtual_time import run_virtually


def test_the_shortest_limit_counts_from_the_arrival() -> None:
    clock = FakeClock()
    deadline = deadline_from(98.0, 60.0, 5.0, None, clock=clock)
    assert (deadline.left_s(), deadline.bound(10.0), deadline.bound(10.0, share=0.5), deadline.bound(1.0)) == (
        3.0,
        3.0,
        1.5,
        1.0,
    )
    clock.now_s += 4.0
    assert (deadline.left_s(), deadline.is_over) == (0.0, True)
    with pytest.raises(DeadlineExceeded, match=r"within its 5 s; stage 'queue'"):
        deadline.check("queue")


def test_without_a_limit_there_is_no_deadline() -> None:
    deadline = deadline_from(0.0, None, None, clock=FakeClock())
    assert (deadline, deadline.left_s(), deadline.left_or_none(), deadline.bound(7.0)) == (NO_DEADLINE, math.inf, None, 7.0)


@pytest.mark.parametrize("value", ["0", "-1", "1e9", "nan", "inf", "", "soon", "1,5", "0.0"])
def test_a_timeout_that_is_no_positive_number_is_refused(value: str) -> None:
    with pytest.raises(BadRequest, match="x-request-timeout-s must be a positive number") as caught:
        wished_timeout(value)
    assert caught.value.param == "x-request-timeout-s"


def test_a_timeout_is_a_number_of_seconds() -> None:
    assert [wished_timeout(value) for value in (None, "3", " 2.5 ", ".5")] == [None, 3.0, 2.5, 0.5]


def test_work_that_is_late_is_cut_off_and_its_stage_named() -> None:
    async def main() -> tuple[str, list[str | None], float]:
        clock = asyncio.get_running_loop().time
        record = RequestRecord(clock=clock)

        async def work() -> None:
            with record.stage("retrieve"):
                await asyncio.sleep(1)
            with record.stage("queue"):
                await asyncio.Event().wait()

        with pytest.raises(DeadlineExceeded) as caught:
            await in_time(work(), Deadline(5.0, 5.0, clock), stages=record)
        return caught.value.message, [timing.error for timing in record.timings], clock()

    message, errors, over_s = run_virtually(main())
    assert message == "the request was not answered within its 5 s; stage 'queue' was running"
    assert (errors, over_s) == ([None, "deadline_exceeded"], 5.0)


def test_a_timeout_of_the_works_own_is_passed_on() -> None:
    async def work() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        run_virtually(in_time(work(), Deadline(5.0, 5.0, lambda: 0.0), stages=RequestRecord()))


class Slow:
    """A stream whose second piece never comes."""

    def __init__(self) -> None:
        self.pieces = 0
        self.closed = 0

    def __aiter__(self) -> Slow:
        return self

    async def __anext__(self) -> bytes:
        self.pieces += 1
        if self.pieces > 1:
            await asyncio.Event().wait()
        return b"data: 1\n\n"

    async def aclose(self) -> None:
        self.closed += 1


def test_a_stream_ends_in_an_error_event_when_its_time_is_over() -> None:
    async def main() -> tuple[list[bytes], int, RequestRecord]:
        record, stream = RequestRecord(), Slow()
        deadline = Deadline(5.0, 5.0, asyncio.get_running_loop().time)
        call = Call("/v1/chat/completions", {}, b"", ANONYMOUS, request_id="q1", record=record, deadline=deadline)
        reply = deadlined(Reply("text/event-stream", stream, "chat", "stable"), call)
        assert not isinstance(reply.body, bytes)
        return [piece async for piece in reply.body], stream.closed, record

    pieces, closed, record = run_virtually(main())
    error = (event_document(pieces[1]) or {})["error"]
    assert (pieces[0], error["code"], closed, len(pieces)) == (b"data: 1\n\n", "deadline_exceeded", 1, 2)
    record.leave()  # a client that leaves after it has heard of the error changes nothing
    assert record.outcome is RequestOutcome.DEADLINE
