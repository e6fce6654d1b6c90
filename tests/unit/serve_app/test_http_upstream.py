from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import uvloop

from deployments.llm.adapters import adapter_of
from serve_app.contracts import AdapterTag, TraceLink
from serve_app.errors import BadRequest
from serve_app.http_upstream import HttpUpstream
from serve_app.upstream import AdapterMissing, NoConnectionLeft, ReplicaDraining, ReplicaUnreachable, UpstreamRequest
from tests.unit.serve_app.fakes import FakeClock

REQUEST = UpstreamRequest("POST", "/v1/x?y=1", b'{"a": 1}', "q1")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
Talk = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def replica(talk: Talk) -> AsyncIterator[tuple[HttpUpstream, str]]:
    """Run a server that reads one request and says what ``talk`` makes it say."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(len(REQUEST.body))
        await talk(head + body, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream = HttpUpstream(token="t0ken")
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
            assert await response.read() if is_whole else [await response.chunk() for _ in range(2)]
        response.close()


async def test_nobody_there_is_unreachable() -> None:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None: ...

    async with replica(talk) as (upstream, url):
        pass
    upstream = HttpUpstream(token="t0ken")
    with pytest.raises(ReplicaUnreachable) as caught:
        await upstream.open(url, REQUEST)
    assert not caught.value.was_sent
    await upstream.close()


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Use up this process's file descriptors for the block."""
    limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 64, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_what_this_process_lacks_is_told_from_what_the_replica_lacks() -> None:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None: ...

    async with replica(talk) as (upstream, url):
        with no_descriptor_left(), pytest.raises(NoConnectionLeft) as caught:
            await upstream.open(url, REQUEST)
        assert not caught.value.was_sent


async def ask(upstream: HttpUpstream, url: str) -> bytes:
    return await (await upstream.open(url, REQUEST)).read()


@asynccontextmanager
async def keeping(*answers: bytes) -> AsyncIterator[tuple[HttpUpstream, str, list[int], FakeClock]]:
    """Run a server that keeps connections, gives each request the next answer and counts the connections."""
    left = list(answers)
    connections: list[int] = []
    open_ends: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ends.append(writer)
        connections.append(1)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(len(REQUEST.body))
                writer.write(left.pop(0) if len(left) > 1 else left[0])

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    clock = FakeClock()
    upstream = HttpUpstream(token="t0ken", clock=clock)
    try:
        yield upstream, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections, clock
    finally:
        await upstream.close()
        for end in open_ends:
            end.close()
        server.close()


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_a_connection_is_used_again_once_its_answer_has_ended() -> None:
    async with keeping(WHOLE, OK + b"2\r\nok\r\n0\r\n\r\n", WHOLE) as (upstream, url, connections, _):
        assert [await ask(upstream, url) for _ in range(3)] == [b"ok"] * 3
        assert len(connections) == 1


async def test_requests_at_once_have_a_connection_each() -> None:
    async with keeping(WHOLE) as (upstream, url, connections, _):
        assert await asyncio.gather(*(ask(upstream, url) for _ in range(5))) == [b"ok"] * 5
        assert len(connections) == 5


async def test_a_connection_that_was_idle_for_long_is_not_used_again() -> None:
    async with keeping(WHOLE) as (upstream, url, connections, clock):
        await ask(upstream, url)
        clock.now_s += 61.0
        await ask(upstream, url)
        assert len(connections) == 2


async def test_a_connection_that_the_replica_will_close_is_not_used_again() -> None:
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    async with keeping(closing) as (upstream, url, connections, _):
        assert [await ask(upstream, url), await ask(upstream, url)] == [b"ok", b"ok"]
        assert len(connections) == 2


async def test_a_stream_that_is_closed_early_takes_its_connection_with_it() -> None:
    async with keeping(OK + b"2\r\nok\r\n", WHOLE) as (upstream, url, connections, _):
        response = await upstream.open(url, REQUEST)
        assert await response.chunk() == b"ok"
        response.close()
        assert await ask(upstream, url) == b"ok"
        assert len(connections) == 2


async def test_an_interim_answer_is_passed_over() -> None:
    async with keeping(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + WHOLE) as (upstream, url, _, _):
        response = await upstream.open(url, REQUEST)
        assert (response.status, response.header(b"link"), await response.read()) == (200, None, b"ok")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", id="another-protocol"),
        pytest.param(OK + b"zz\r\nok\r\n", id="broken-framing"),
        pytest.param(b"HTTP/1.1 999 X\r\nContent-Length: 2\r\n\r\nok", id="no-status"),
        pytest.param(b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", id="another-version"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", id="compressed"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", id="coded"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: \xff\r\nContent-Length: 2\r\n\r\nok", id="no-content-type"),
        pytest.param(b"HTTP/1.1 103 X\r\n\r\n" * 5, id="interim-answers"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 201 + b"\r\n", id="headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", id="bytes-of-headers"),
    ],
)
async def test_what_is_no_http_is_unreachable(answer: bytes) -> None:
    async with keeping(answer) as (upstream, url, _, _):
        with pytest.raises(ReplicaUnreachable):
            await ask(upstream, url)


async def test_an_answer_without_any_length_ends_with_its_connection() -> None:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")

    async with replica(talk) as (upstream, url):
        assert await ask(upstream, url) == b"all of it"


async def test_more_than_a_client_reads_waits_in_the_replica() -> None:
    size = 64 * 1024 * 1024
    sent: list[int] = []

    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for piece in range(size // 65536):
            writer.write(bytes(65536))
            await writer.drain()
            sent.append(piece)

    async with replica(talk) as (upstream, url):
        response = await upstream.open(url, REQUEST)
        await asyncio.sleep(0.3)  # what could flow has flowed
        assert len(sent) * 65536 < size / 2
        assert len(await response.read()) == size


async def test_a_request_line_cannot_be_broken_out_of() -> None:
    async with keeping(WHOLE) as (upstream, url, connections, _):
        with pytest.raises(BadRequest, match="URL"):
            await upstream.open(url, UpstreamRequest("POST", "/v1/x HTTP/1.1\r\nx: y", b"", "q"))
        assert not connections


async def test_a_kind_of_body_goes_out_as_it_came() -> None:
    heard: list[bytes] = []

    async def talk(request: bytes, writer: asyncio.StreamWriter) -> None:
        heard.append(request)
        writer.write(OK + b"0\r\n\r\n")

    async with replica(talk) as (upstream, url):
        (await upstream.open(url, replace(REQUEST, content_type="multipart/form-data; boundary=b"))).close()
    assert b"\r\ncontent-type: multipart/form-data; boundary=b\r\n" in heard[0]


async def test_a_header_cannot_be_broken_out_of() -> None:
    async with keeping(WHOLE) as (upstream, url, connections, _):
        with pytest.raises(BadRequest, match="content-type"):
            await upstream.open(url, replace(REQUEST, content_type="a/b\r\nx: y"))
        assert not connections


async def test_a_replica_that_takes_no_connection_in_time_is_unreachable() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        host, port = full.getsockname()
        with socket.create_connection((host, port)), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex((host, port))
            upstream = HttpUpstream(token="t0ken", connect_timeout_s=0.05)
            with pytest.raises(ReplicaUnreachable, match="time limit") as caught:
                await upstream.open(f"http://{host}:{port}", REQUEST)
            await upstream.close()
    assert not caught.value.was_sent


def test_it_runs_on_the_event_loop_that_serve_uses() -> None:
    async def main() -> bytes:
        async with keeping(WHOLE) as (upstream, url, _, _):
            return await ask(upstream, url)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == b"ok"


@pytest.mark.parametrize(
    "extra", [pytest.param(WHOLE, id="a-second-answer"), pytest.param(b"HTTP/1.1 5", id="the-start-of-one")]
)
async def test_what_follows_the_answer_never_reaches_the_next_request(extra: bytes) -> None:
    async with keeping(WHOLE + extra, WHOLE) as (upstream, url, connections, _):
        assert [await ask(upstream, url), await ask(upstream, url)] == [b"ok", b"ok"]
        assert len(connections) == 2


async def test_a_connection_that_closes_this_moment_is_not_used_again() -> None:
    async with keeping(WHOLE) as (upstream, url, connections, _):
        await ask(upstream, url)
        (idle,) = upstream._addresses[url].idle
        idle.abort()  # the loop tells of it in its next turn only
        assert await ask(upstream, url) == b"ok"
        assert len(connections) == 2


async def test_a_connection_that_the_replica_closed_meanwhile_costs_no_request() -> None:
    """The replica closes as the second request comes: the end is on its way when the request is sent."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(REQUEST.body))
        writer.write(WHOLE)
        if connections == 1:
            await reader.readuntil(b"\r\n\r\n")
        else:
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream = HttpUpstream(token="t0ken")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert [await ask(upstream, url), await ask(upstream, url)] == [b"ok", b"ok"]
    assert connections == 2
    await upstream.close()
    server.close()


async def test_a_replica_that_dies_of_a_request_is_not_asked_for_ever() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(REQUEST.body))
        writer.write(WHOLE)
        await reader.readuntil(b"\r\n\r\n")
        server.close()  # nobody answers any more
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream = HttpUpstream(token="t0ken")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await ask(upstream, url)
    with pytest.raises(ReplicaUnreachable) as caught:
        await upstream.open(url, REQUEST)
    assert caught.value.was_sent
    await upstream.close()


async def test_an_answer_without_any_length_does_not_end_with_a_reset() -> None:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with replica(talk) as (upstream, url):
        with pytest.raises(ReplicaUnreachable):
            await ask(upstream, url)


@pytest.mark.parametrize("is_closed", [False, True], ids=["read-to-its-end", "closed-early"])
async def test_an_exchange_that_is_over_is_freed_at_once(is_closed: bool) -> None:
    answer = OK + b"2\r\nok\r\n" if is_closed else WHOLE
    async with keeping(answer) as (upstream, url, _, _):
        response = await upstream.open(url, REQUEST)
        gone = weakref.ref(response)
        response.close() if is_closed else await response.read()
        await asyncio.sleep(0.05)
        gc.disable()
        try:
            del response
            assert gone() is None
        finally:
            gc.enable()


async def test_no_address_is_kept_that_has_no_connection() -> None:
    async with replica(lambda *_: asyncio.sleep(0)) as (upstream, url):
        opening = asyncio.create_task(upstream.open(url, REQUEST))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        with pytest.raises(BadRequest):
            await upstream.open(url, UpstreamRequest("POST", "/a b", b"", "q"))
        await asyncio.sleep(0.05)
        assert upstream._addresses == {}


async def test_an_address_lives_while_a_connection_to_it_opens() -> None:
    """The only other connection ends meanwhile; the new one must be found again by the request after."""
    async with keeping(WHOLE) as (upstream, url, connections, _):
        await ask(upstream, url)
        (first,) = upstream._addresses[url].idle
        opening = asyncio.gather(ask(upstream, url), ask(upstream, url))  # one on the free connection, one on a new one
        await asyncio.sleep(0)
        first.abort()
        await asyncio.wait([opening])
        before = len(connections)
        await ask(upstream, url)
        assert len(connections) == before


async def test_requests_that_nobody_acknowledges_end_within_a_minute() -> None:
    async with keeping(WHOLE) as (upstream, url, _, _):
        await ask(upstream, url)
        (idle,) = upstream._addresses[url].idle
        assert idle._transport is not None
        found = idle._transport.get_extra_info("socket")
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 50_000


async def headers_of(request: UpstreamRequest) -> list[tuple[bytes, bytes]]:
    """Return the headers that a replica gets, as ASGI servers give them."""
    heard: list[bytes] = []

    async def talk(sent: bytes, writer: asyncio.StreamWriter) -> None:
        heard.append(sent)
        writer.write(OK + b"0\r\n\r\n")

    async with replica(talk) as (upstream, url):
        (await upstream.open(url, request)).close()
    head = heard[0].split(b"\r\n\r\n")[0]
    pairs = (line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return [(name.lower(), value) for name, value in pairs]


async def test_a_replica_hears_of_the_trace_only_where_there_is_one() -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    traced = await headers_of(replace(REQUEST, trace=TraceLink(parent, "vendor=1", '{"enabled": true}')))
    told = [pair for pair in traced if pair[0].startswith(b"trace")]
    assert told == [(b"traceparent", parent.encode()), (b"tracestate", b"vendor=1")]
    assert [name for name, _ in await headers_of(REQUEST) if name.startswith(b"trace")] == []


async def test_a_request_without_an_adapter_says_nothing_of_one() -> None:
    assert [name for name, _ in await headers_of(REQUEST) if name.startswith(b"x-manta")] == []


@pytest.mark.parametrize(
    "source",
    [
        "s3://bucket/some prefix/",
        "/adapters/Über 100%/\u6cd5",
        "/a\r\nx-manta-adapter: other/v1\r\n\r\nGET / HTTP/1.1",
    ],
    ids=["space", "unicode", "injection"],
)
async def test_a_replica_hears_of_the_adapter_what_the_router_says(source: str) -> None:
    tag = AdapterTag("legal/v1", source, "abc")
    headers = await headers_of(replace(REQUEST, adapter=tag))
    assert sorted(name for name, _ in headers if name.startswith(b"x-manta")) == [
        b"x-manta-adapter",
        b"x-manta-adapter-revision",
        b"x-manta-adapter-source",
    ]
    assert adapter_of({"type": "http", "headers": headers}) == tag


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (b"X-Manta-Draining", ReplicaDraining),
        (b"X-Manta-Lost", ReplicaUnreachable),
        (b"X-Manta-Adapter-Unavailable", AdapterMissing),
    ],
    ids=["draining", "lost", "adapter"],
)
async def test_refusals_of_the_replica_itself_are_told_apart(header: bytes, error: type[Exception]) -> None:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 No\r\n" + header + b": 1\r\nContent-Length: 0\r\n\r\n")

    async with replica(talk) as (upstream, url):
        with pytest.raises(error):
            await upstream.open(url, REQUEST)
