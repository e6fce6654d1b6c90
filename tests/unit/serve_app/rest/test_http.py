from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from serve_app.errors import BadRequest, BodyTooLarge
from serve_app.rest.http import ClientGone, answer_lifespan, parse_object, read_body, send_chunks, while_connected
from tests.unit.serve_app.fakes import turns


def receiver(*messages: dict[str, Any]) -> Any:
    """Return a ``receive`` that gives these messages and then nothing any more."""
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        if (message := next(left, None)) is None:
            await asyncio.Event().wait()
            raise AssertionError
        return message

    return receive


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def scope(length: bytes | None = None) -> dict[str, Any]:
    return {"headers": [] if length is None else [(b"content-length", length)]}


GONE = {"type": "http.disconnect"}


async def test_a_body_is_put_together() -> None:
    assert await read_body(scope(), receiver(part(b"ab", more=True), part(b"c")), limit_bytes=3) == b"abc"


@pytest.mark.parametrize("length", [b"4", b"9" * 5000], ids=["over", "thousands-of-digits"])
async def test_a_body_announced_too_large_is_not_read(length: bytes) -> None:
    with pytest.raises(BodyTooLarge):
        await asyncio.wait_for(read_body(scope(length), receiver(), limit_bytes=3), 1)


@pytest.mark.parametrize("length", [None, b"3", b"x", "²".encode("latin-1"), b"-1"])
async def test_a_body_that_turns_out_too_large_is_refused(length: bytes | None) -> None:
    with pytest.raises(BodyTooLarge, match="limit of 3 bytes"):
        await read_body(scope(length), receiver(part(b"ab", more=True), part(b"cd", more=True)), limit_bytes=3)


async def test_a_client_that_leaves_in_its_request_is_gone() -> None:
    with pytest.raises(ClientGone):
        await read_body(scope(), receiver(part(b"a", more=True), GONE), limit_bytes=3)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not valid JSON: Expecting value at line 1 column 1"),
        (b'{\n"a": }', "at line 2 column 6"),
        (b"\xff\xff", "must be UTF-8"),
        (b"[" * 200_000, "not nested without end"),
        (b'{"a": ' + b"1" * 5000 + b"}", "numbers of sensible size"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": ' + b"[" * 128 + b"]" * 128 + b"}", "nested more than 128 levels deep"),
        (b"[1]", "must be a JSON object, got list"),
        (b"null", "must be a JSON object, got NoneType"),
    ],
    ids=["empty", "syntax", "no-utf-8", "deep", "long-number", "nan", "too-deep", "list", "null"],
)
def test_what_is_no_json_object_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parse_object(raw)


def test_as_deep_as_allowed_and_as_wide_as_wanted_is_read() -> None:
    assert parse_object(b'{"a": ' + b"[" * 127 + b"]" * 127 + b', "b": [' + b"[]," * 1000 + b"[]]}")["a"]


async def test_work_that_ends_ends_the_watch_for_the_client() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    await while_connected(receiver(part(b"")), work())
    assert done == [1]


async def test_what_work_raises_is_raised() -> None:
    async def work() -> None:
        raise BadRequest("no")

    with pytest.raises(BadRequest):
        await while_connected(receiver(), work())


async def test_work_is_cancelled_when_the_client_leaves() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with pytest.raises(ClientGone):
        await while_connected(receiver(part(b""), GONE), work())
    assert ended == ["cancelled"]


async def test_work_is_cancelled_with_its_front() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    front = asyncio.create_task(while_connected(receiver(), work()))
    await turns()
    front.cancel()
    await asyncio.wait([front])
    assert ended == ["cancelled"]


class Chunks:
    """A stream that knows whether it was closed."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self.closed = 0

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


async def test_a_stream_is_sent_chunk_by_chunk_and_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append((message["type"], message.get("body"), message.get("more_body", False)))

    chunks = Chunks([b"a", b"b"])
    await send_chunks(send, chunks)
    assert sent == [
        ("http.response.body", b"a", True),
        ("http.response.body", b"b", True),
        ("http.response.body", b"", False),
    ]
    assert chunks.closed == 1


async def test_a_stream_is_closed_when_its_client_cannot_be_reached() -> None:
    async def send(_: Any) -> None:
        raise OSError("gone")

    chunks = Chunks([b"a"])
    with pytest.raises(OSError, match="gone"):
        await send_chunks(send, chunks)
    assert chunks.closed == 1


async def test_start_and_shutdown_are_agreed_to() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await answer_lifespan(receiver({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}), send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
