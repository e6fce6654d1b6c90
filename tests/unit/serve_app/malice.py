"""Answers of a replica that is broken or hostile, and a Router's front over it and over a healthy one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from serve_app.config import LimitsConfig
from serve_app.gateway import Gateway, Stages
from serve_app.http_upstream import HttpUpstream
from serve_app.inference import Inference
from serve_app.rest.app import RestApp
from serve_app.rollout.document import RoutedModel, RoutedVariant, RoutingDocument
from serve_app.stream_ends import is_error_event
from tests.unit.serve_app.fakes import FakeRetriever, entry, leases_of, snapshot, turns
from tests.unit.serve_app.rest.front import CHAT

LINE = b"HTTP/1.1 200 OK\r\n"
JSON = LINE + b"Content-Type: application/json\r\n"
EVENTS = LINE + b"Content-Type: text/event-stream\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"id": "x", "choices": [], "usage": {}}'
TOKEN = b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def sized(body: bytes, head: bytes = JSON) -> bytes:
    """Return an answer with its length."""
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*parts: bytes, head: bytes = EVENTS, end: bytes = b"0\r\n\r\n") -> bytes:
    """Return an answer in chunks."""
    return head + CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


WHOLE = sized(BODY)
STREAM = chunked(TOKEN, TOKEN, DONE)


@dataclass
class Server:
    """Answers every request with these pieces, and then closes, resets or keeps the connection."""

    pieces: Sequence[bytes] = (WHOLE,)
    ending: str = "close"
    answers_early: bool = False  # before it has read the request
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                if not self.answers_early:
                    await _request(reader)
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.ending != "keep":
                    break
                if self.answers_early:
                    await _request(reader)
        if self.ending == "reset":
            writer.transport.abort()
        writer.close()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head + await reader.readexactly(size)


class Healthy(Server):
    """Answers as an engine does."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while request := await _request(reader):
                writer.write(STREAM if b'"stream": true' in request else WHOLE)
        writer.close()


class Clock:
    """Seconds that pass with the loop's, and more when a test says so: what was left alone is tried again at once."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead_s


@dataclass
class Site:
    """A Router's front, the model ``bad`` at a hostile replica, and the model ``good`` at a healthy one."""

    gateway: Gateway
    upstream: HttpUpstream
    clock: Clock
    server: Server
    faults: list[dict[str, Any]] = field(default_factory=list)  # what the event loop complained of

    async def ask(self, model: str = "bad", *, stream: bool) -> httpx.Response:
        """Return the front's answer, which must be here within seconds."""
        self.clock.ahead_s += 100.0
        body = {"model": model, "messages": [{"role": "user", "content": "Why?"}], "stream": stream}
        transport = httpx.ASGITransport(RestApp(Inference(self.gateway), report=_report))
        async with asyncio.timeout(15), httpx.AsyncClient(transport=transport, base_url="http://manta") as client:
            raw = json.dumps(body).encode()
            return await client.post(CHAT, content=raw, headers={"content-type": "application/json"})

    async def check(self) -> None:
        """Ask both models both ways and see that nobody is left without an end, and nothing is left behind."""
        for stream in (False, True):
            assert_complete(await self.ask(stream=stream))
            assert_answered(await self.ask("good", stream=stream))
        assert (leases_of(self.gateway), self.gateway.pool.waiting()) == (0, 0)
        await asyncio.sleep(0.01)
        for address in self.upstream._addresses.values():
            assert all(each.is_open and each._exchange is None for each in address.idle)
            assert set(address.connections) == set(address.idle)
        assert self.faults == []


async def _report() -> dict[str, str]:
    return {}


def assert_complete(response: httpx.Response) -> None:
    """Whatever the replica said: an error object, a JSON document, or a stream with an end that SDKs know."""
    kind = response.headers["content-type"]
    assert 200 <= response.status_code < 600
    if kind.startswith("text/event-stream"):
        assert response.content.endswith((b"\n\n", b"\n\r\n"))
        *_, last = response.content.rstrip().replace(b"\r\n", b"\n").split(b"\n\n")
        assert b"data: [DONE]" in response.content or is_error_event(last), response.content[-300:]
    elif kind.startswith("application/json"):
        assert response.content.strip()[-1:] in (b"}", b"]"), response.content[-300:]
        if response.status_code >= 300:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def assert_answered(response: httpx.Response) -> None:
    """As the healthy replica says it."""
    assert (response.status_code, response.content) in ((200, BODY), (200, TOKEN + TOKEN + DONE))


@asynccontextmanager
async def site(server: Server, *, idle_timeout_s: float = 0.4) -> AsyncIterator[Site]:
    """Run both replicas on ports of this machine, and a front over them."""
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    healthy = Healthy()
    ends = [await asyncio.start_server(each, "127.0.0.1", 0) for each in (server, healthy)]
    urls = [f"http://127.0.0.1:{end.sockets[0].getsockname()[1]}" for end in ends]
    clock, upstream = Clock(), HttpUpstream(token="t0ken")

    async def wake(*_: str) -> None: ...

    gateway = Gateway(upstream=upstream, wake=wake, stages=Stages(retriever=FakeRetriever()), clock=clock)
    variant = RoutedVariant(name="stable", weight=100, max_leases=9, engine="simulated")
    models = tuple(RoutedModel(name=name, variants=(variant,), first_byte_timeout_s=1.0) for name in ("bad", "good"))
    limits = LimitsConfig(wait_timeout_s=0.05)  # a replica that was left alone is not waited for
    routing = RoutingDocument(models=models, limits=limits, stream_idle_timeout_s=idle_timeout_s)
    replicas = [entry(name, model=name, url=url) for name, url in zip(("bad", "good"), urls, strict=True)]
    gateway.update(snapshot(*replicas, routing=routing))
    try:
        yield Site(gateway, upstream, clock, server, faults)
    finally:
        await upstream.close()
        for each in (server, healthy):
            for writer in each.writers:
                writer.transport.abort()
        for end in ends:
            end.close()
        await turns(20)  # the servers see that their connections are gone
        loop.set_exception_handler(None)
