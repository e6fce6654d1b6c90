from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from serve_app.upstream import AiohttpUpstream, ReplicaDraining, ReplicaUnreachable, UpstreamRequest

REQUEST = UpstreamRequest("POST", "/v1/x?y=1", b'{"a": 1}', "q1")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
Talk = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def replica(talk: Talk) -> AsyncIterator[tuple[AiohttpUpstream, str]]:
    """Run a server that reads one request and says what ``talk`` makes it say."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(len(REQUEST.body))
        await talk(head + body, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream = AiohttpUpstream(token="t0ken")
    try:
        yield upstream, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await upstream.close()
        server.close()


async def test_a_request_goes_out_as_it_is_with_the_internal_token() -> None:
    heard: list[bytes] = []

    async def talk(request: bytes, writer: asyncio.StreamWriter) -> None:
        heard.append(request)
        writer.write(OK + b"5\r\nhello\r\n0\r\n\r\n")

    async with replica(talk) as (upstream, url):
        response = await upstream.open(url, REQUEST)
        assert (response.status, response.content_type, await response.read()) == (200, "text/event-stream", b"hello")
        response.close()
    assert heard[0].startswith(b"POST /v1/x?y=1 HTTP/1.1\r\n")
    assert heard[0].endswith(b'\r\n\r\n{"a": 1}')
    headers = dict(line.split(": ", 1) for line in heard[0].decode().lower().split("\r\n")[1:-2])
    assert (headers["authorization"], headers["x-request-id"]) == ("bearer t0ken", "q1")


async def test_a_refusal_of_a_replica_that_drains_is_told_apart() -> None:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 X\r\nX-Manta-Draining: 1\r\nContent-Length: 0\r\n\r\n")

    async with replica(talk) as (upstream, url):
        with pytest.raises(ReplicaDraining):
            await upstream.open(url, REQUEST)


async def test_another_503_is_an_answer() -> None:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 X\r\nContent-Length: 2\r\n\r\n{}")

    async with replica(talk) as (upstream, url):
        response = await upstream.open(url, REQUEST)
        assert (response.status, await response.read()) == (503, b"{}")


async def test_a_redirect_is_not_followed() -> None:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    async with replica(talk) as (upstream, url):
        assert (await upstream.open(url, REQUEST)).status == 307


async def test_a_connection_closed_before_the_answer_is_unreachable() -> None:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None: ...

    async with replica(talk) as (upstream, url):
        with pytest.raises(ReplicaUnreachable) as caught:
            await upstream.open(url, REQUEST)
    assert caught.value.was_sent


@pytest.mark.parametrize("is_whole", [False, True], ids=["chunks", "read"])
async def test_a_body_that_breaks_off_is_unreachable(is_whole: bool) -> None:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"5\r\nhello\r\n")

    async with replica(talk) as (upstream, url):
        response = await upstream.open(url, REQUEST)
        with pytest.raises(ReplicaUnreachable):
            assert await response.read() if is_whole else [c async for c in response.chunks()]
        response.close()


async def test_nobody_there_is_unreachable() -> None:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None: ...

    async with replica(talk) as (upstream, url):
        pass
    upstream = AiohttpUpstream(token="t0ken")
    with pytest.raises(ReplicaUnreachable) as caught:
        await upstream.open(url, REQUEST)
    assert not caught.value.was_sent
    await upstream.close()
