from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import pytest

from serve_app.attempts import Attempts
from serve_app.pool import Lease
from serve_app.rollout.telemetry import Outcome
from serve_app.sse import error_event
from serve_app.streams import LeasedStream
from tests.unit.serve_app.fakes import BROKEN, FakeClock, FakeResponse, turns, until

FAILED_MESSAGE = "the replica that was answering has failed; send the request again"
FAILED = error_event(FAILED_MESSAGE)


@dataclass
class Held:
    """A stream with all that it holds."""

    response: FakeResponse
    released: list[str] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)
    attempts: Attempts = field(init=False)
    lease: Lease = field(init=False)

    def stream(self, path: str = "") -> LeasedStream:
        self.lease = Lease("r1", "stable", "http://r1", True, lambda: self.released.append("r1"))
        self.attempts = Attempts(clock=self.clock)
        attempt = self.attempts.begin(("chat", "stable"), began_s=0.0, is_stream=True)
        return LeasedStream(self.response, self.lease, attempt=attempt, path=path)

    @property
    def outcomes(self) -> dict[Outcome, int]:
        return self.attempts.stats(("chat", "stable")).outcomes

    @property
    def is_free(self) -> bool:
        return (self.response.closed, self.released) == (1, ["r1"])


def held(*parts: bytes | Exception | asyncio.Event) -> Held:
    return Held(FakeResponse(parts))


async def test_bytes_pass_as_they_come() -> None:
    made = held(b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n")
    assert [c async for c in made.stream()] == [b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n"]
    assert made.is_free


async def test_halves_of_events_are_put_together() -> None:
    made = held(b"data: 1\n", b"\nda", b"ta: 2\n\n", b"data: 3")
    assert [c async for c in made.stream()] == [b"data: 1\n\n", b"data: 2\n\n", b"data: 3"]
    assert made.is_free


async def test_a_stream_that_breaks_ends_in_an_error_event_in_place_of_the_half_one() -> None:
    made = held(b"data: 1\n\nda", BROKEN, b"never")
    assert [c async for c in made.stream()] == [b"data: 1\n\n", FAILED]
    assert made.is_free


async def test_closing_a_stream_that_never_began_frees_all() -> None:
    made = held(b"data: 1\n\n")
    await made.stream().aclose()
    assert made.is_free


async def test_closing_twice_frees_once_and_ends_the_stream() -> None:
    made = held(b"data: 1\n\n", b"data: 2\n\n")
    stream = made.stream()
    assert await anext(stream) == b"data: 1\n\n"
    await stream.aclose()
    await stream.aclose()
    assert made.is_free
    assert [c async for c in stream] == []


async def test_a_reader_that_is_cancelled_frees_all() -> None:
    made = held(b"data: 1\n\n", asyncio.Event())

    async def read() -> list[bytes]:
        return [c async for c in made.stream()]

    reading = asyncio.create_task(read())
    await turns()
    reading.cancel()
    await asyncio.wait([reading])
    assert (reading.cancelled(), made.is_free) == (True, True)


async def test_an_error_nobody_expected_is_no_silent_cut_either(caplog: pytest.LogCaptureFixture) -> None:
    made = held(b"data: 1\n\n", RuntimeError("odd"))
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        assert [c async for c in made.stream()] == [b"data: 1\n\n", FAILED]
    assert (made.is_free, "RuntimeError: odd" in caplog.text) == (True, True)


CHAT, MESSAGES, RESPONSES = "/v1/chat/completions?x=1", "/v1/messages", "/v1/responses"
ENDS = {
    "chat": (CHAT, b"data: [DONE]\n\n"),
    "completions": ("/v1/completions", b"data:[DONE]\n\n"),
    "messages": (MESSAGES, b'event: message_stop\ndata: {"type": "message_stop"}\n\n'),
    "completed": (RESPONSES, b'event: response.completed\ndata: {"response": {}}\n\n'),
    "incomplete": (RESPONSES, b'event: response.incomplete\ndata: {"response": {}}\n\n'),
    "failed": (RESPONSES, b'event: response.failed\ndata: {"response": {}}\n\n'),
    "error": (CHAT, b'data: {"error": {"message": "out of memory"}}\n\n'),
    "another-api": ("/v1/audio/transcriptions", b"data: 2\n\n"),
}


@pytest.mark.parametrize(("path", "end"), ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("size", [1, 1000], ids=["in-bytes", "whole"])
async def test_a_stream_with_its_last_event_is_whole(path: str, end: bytes, size: int) -> None:
    said = b"data: 1\n\n" + end
    made = held(*(said[at : at + size] for at in range(0, len(said), size)))
    assert b"".join([c async for c in made.stream(path)]) == said
    assert Outcome.UNREACHABLE not in made.outcomes


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", MESSAGES, RESPONSES])
async def test_a_stream_without_its_last_event_was_cut(path: str) -> None:
    made = held(b"data: 1\n\nda")
    whole, event = [c async for c in made.stream(path)]
    assert (whole, event) == (b"data: 1\n\n", error_event(FAILED_MESSAGE, path=path))
    assert (made.is_free, made.outcomes) == (True, {Outcome.BROKEN: 1})


async def test_what_breaks_after_the_last_event_is_whole() -> None:
    made = held(b"data: 1\n\n", b"data: [DONE]\n\n", BROKEN)
    assert [c async for c in made.stream(CHAT)] == [b"data: 1\n\n", b"data: [DONE]\n\n"]
    assert (made.is_free, made.outcomes) == (True, {Outcome.OK: 1})


class Silent(FakeResponse):
    """Says its parts and then nothing; whoever waits hears that the connection was dropped."""

    async def chunk(self) -> bytes:
        if self.read_parts < len(self.parts):
            return await super().chunk()
        await until(lambda: self.closed)
        raise BROKEN


async def ended_by_silence(*parts: bytes, silent_s: float, is_lost: bool = False) -> list[bytes] | None:
    """Return what a reader got of a stream that fell silent; None: it reads on."""
    made = Held(Silent(parts))
    stream = made.stream(CHAT).watch(120.0)
    got: list[bytes] = []

    async def read() -> None:
        got.extend([c async for c in stream])

    reading = asyncio.create_task(read())
    await turns()
    made.clock.now_s += silent_s
    made.lease.is_lost = is_lost
    assert made.lease.on_lost is not None
    made.lease.on_lost()
    if not made.response.closed:
        reading.cancel()
        await asyncio.wait([reading])
        return None
    await reading
    assert (made.response.closed > 0, made.released, made.outcomes) == (True, ["r1"], {Outcome.BROKEN: 1})
    return got


@pytest.mark.parametrize("parts", [(b"data: 1\n\n",), (b"data: 1\n\n", b"da")], ids=["silence", "half-an-event"])
async def test_a_stream_that_falls_silent_ends_with_its_own_code(parts: tuple[bytes, ...]) -> None:
    assert await ended_by_silence(*parts, silent_s=119.0) is None
    got = await ended_by_silence(*parts, silent_s=121.0)
    assert got is not None
    assert (got[0], b'"code": "stream_stalled"' in got[1], b"for 121 s" in got[1]) == (b"data: 1\n\n", True, True)


async def test_a_stream_at_a_replica_that_is_lost_ends_after_seconds_of_silence() -> None:
    assert await ended_by_silence(b"data: 1\n\n", silent_s=4.0, is_lost=True) is None
    assert await ended_by_silence(b"data: 1\n\n", silent_s=6.0, is_lost=True) is not None


async def test_a_client_that_reads_slowly_does_not_make_its_replica_stuck() -> None:
    made = held(b"data: 1\n\n", b"data: [DONE]\n\n")
    stream = made.stream(CHAT).watch(120.0)
    assert await anext(stream) == b"data: 1\n\n"
    made.clock.now_s += 500.0
    stream.watch(120.0)
    assert [c async for c in stream] == [b"data: [DONE]\n\n"]


async def test_a_last_event_without_its_blank_line_gets_one() -> None:
    made = held(b"data: 1\n\n", b"data: [DONE]")
    assert [c async for c in made.stream(CHAT)] == [b"data: 1\n\n", b"data: [DONE]\n\n"]
    assert made.outcomes == {Outcome.OK: 1}
