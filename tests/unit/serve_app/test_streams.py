from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import pytest

from serve_app.attempts import Attempts
from serve_app.pool import Lease
from serve_app.sse import error_event
from serve_app.streams import LeasedStream
from tests.unit.serve_app.fakes import BROKEN, FakeResponse, turns

FAILED = error_event("the replica that was answering has failed; send the request again")


@dataclass
class Held:
    """A stream with all that it holds."""

    response: FakeResponse
    released: list[str] = field(default_factory=list)

    def stream(self) -> LeasedStream:
        lease = Lease("r1", "stable", "http://r1", True, lambda: self.released.append("r1"))
        attempt = Attempts(clock=lambda: 0.0).begin(("chat", "stable"), began_s=0.0, is_stream=True)
        return LeasedStream(self.response, lease, attempt=attempt)

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
