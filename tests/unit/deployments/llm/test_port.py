from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httpx
import pytest

from deployments.llm.engine import AsgiApp, Receive, Scope, Send
from deployments.llm.port import Guard, ReplicaPort
from serve_app.contracts import DRAINING_HEADER
from tests.unit.deployments.llm.asgi import Exchange
from tests.unit.serve_app.fakes import turns, until

TOKEN = "internal-token"


class Engine:
    """An app that answers when it may."""

    def __init__(self, *, may_end: bool = True) -> None:
        self.may_end = asyncio.Event()
        self.scopes: list[str] = []
        if may_end:
            self.may_end.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope["type"])
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            self.scopes.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
            return
        await self.may_end.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("token", [None, "wrong", TOKEN[:-1], TOKEN + "x"])
async def test_without_the_internal_token_nothing_reaches_the_engine(token: str | None) -> None:
    engine = Engine()
    answer = await Exchange(token=token).run(Guard(engine, token=TOKEN))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (401, "invalid_api_key")
    assert engine.scopes == []


async def test_with_the_token_the_engine_answers() -> None:
    answer = await Exchange(token=TOKEN).run(Guard(Engine(), token=TOKEN))
    assert (answer.status, answer.body) == (200, b"ok")


async def test_a_draining_replica_says_so_in_a_header_that_routers_know() -> None:
    guard = Guard(Engine(), token=TOKEN)
    guard.is_draining = True
    answer = await Exchange(token=TOKEN).run(guard)
    assert (answer.status, answer.headers[DRAINING_HEADER.encode()]) == (503, b"1")


async def test_draining_is_no_news_for_strangers() -> None:
    guard = Guard(Engine(), token=TOKEN)
    guard.is_draining = True
    assert (await Exchange().run(guard)).status == 401


async def test_open_requests_are_counted_until_they_end_or_are_cancelled() -> None:
    engine = Engine(may_end=False)
    guard = Guard(engine, token=TOKEN)
    first, second = (asyncio.create_task(Exchange(token=TOKEN).run(guard)) for _ in range(2))
    await turns()
    assert (guard.open_requests, guard.is_idle.is_set()) == (2, False)
    first.cancel()
    await turns()
    assert (guard.open_requests, guard.is_idle.is_set()) == (1, False)
    engine.may_end.set()
    await second
    assert (guard.open_requests, guard.is_idle.is_set()) == (0, True)


class Streaming:
    """Streams: the head at once, then pieces as they are put into its queue; an empty one ends it."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while piece := await self.pieces.get():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def test_a_prompt_is_queued_until_the_first_byte_of_its_answer() -> None:
    engine = Streaming()
    guard = Guard(engine, token=TOKEN)
    exchange = Exchange(token=TOKEN, size=b"4000")
    task = asyncio.create_task(exchange.run(guard))
    await turns()
    assert (exchange.sent, guard.prefill_tokens_queued) == ([], 1000)
    engine.pieces.put_nowait(b"first")
    await turns()
    assert (exchange.status, guard.open_requests, guard.prefill_tokens_queued) == (200, 1, 0)
    for piece in (b"second", b""):
        engine.pieces.put_nowait(piece)
    await task
    assert (exchange.body, guard.prefill_tokens_queued) == (b"firstsecond", 0)


async def test_a_prompt_whose_client_leaves_is_queued_no_more() -> None:
    guard = Guard(Engine(may_end=False), token=TOKEN)
    first, second = (asyncio.create_task(Exchange(token=TOKEN, size=size).run(guard)) for size in (b"400", b"80"))
    await turns()
    assert guard.prefill_tokens_queued == 120
    first.cancel()
    await turns()
    assert guard.prefill_tokens_queued == 20
    second.cancel()
    await asyncio.wait([second])
    assert guard.prefill_tokens_queued == 0


async def test_an_answer_without_a_byte_leaves_no_prompt_behind() -> None:
    engine = Streaming()
    engine.pieces.put_nowait(b"")
    guard = Guard(engine, token=TOKEN)
    await Exchange(token=TOKEN, size=b"400").run(guard)
    assert guard.prefill_tokens_queued == 0


@pytest.mark.parametrize(
    "size", [None, b"", b"-400", b"4e3", b"many", b"9" * 5000], ids=["chunked", "empty", "negative", "float", "text", "endless"]
)
async def test_a_body_of_unknown_size_counts_for_nothing(size: bytes | None) -> None:
    guard = Guard(Engine(may_end=False), token=TOKEN)
    task = asyncio.create_task(Exchange(token=TOKEN, size=size).run(guard))
    await turns()
    assert (guard.open_requests, guard.prefill_tokens_queued) == (1, 0)
    task.cancel()
    await asyncio.wait([task])


async def test_only_work_that_is_let_through_has_arrived() -> None:
    guard = Guard(Engine(), token=TOKEN)
    for exchange in (Exchange(token=TOKEN), Exchange(), Exchange(token=TOKEN, method="GET", path="/health")):
        await exchange.run(guard)
    guard.is_draining = True
    await Exchange(token=TOKEN).run(guard)
    assert (guard.arrived, guard.open_requests) == (1, 0)


async def test_lifespan_reaches_the_engine_and_websockets_do_not() -> None:
    engine = Engine()
    guard = Guard(engine, token=TOKEN)
    messages = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(messages)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    for kind in ("lifespan", "websocket"):
        await guard({"type": kind}, receive, send)
    assert (engine.scopes, sent) == (
        ["lifespan", "lifespan.shutdown"],
        ["lifespan.startup.complete", "lifespan.shutdown.complete"],
    )


async def test_a_port_serves_drains_and_stops() -> None:
    engine = Engine(may_end=False)
    port = ReplicaPort(engine, token=TOKEN, host="127.0.0.1")
    url = await port.start()
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        open_one = asyncio.create_task(client.post("/v1/x"))
        await until(lambda: port.guard.open_requests)
        assert not await port.drain(0.0)
        assert (await client.post("/v1/x")).status_code == 503
        engine.may_end.set()
        assert await port.drain(5.0)
        assert (await open_one).text == "ok"
    await port.stop()
    assert engine.scopes == ["lifespan", "http", "lifespan.shutdown"]
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_an_address_that_is_not_ours_is_an_error() -> None:
    port = ReplicaPort(Engine(), token=TOKEN, host="203.0.113.1")
    with pytest.raises(OSError, match="assign"):
        await port.start()
    assert port._socket.fileno() == -1


async def test_a_server_that_stops_while_starting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(sockets: list[socket.socket]) -> None: ...

    port = ReplicaPort(Engine(), token=TOKEN, host="127.0.0.1")
    monkeypatch.setattr(port._server, "serve", serve)
    with pytest.raises(OSError, match="stopped while starting"):
        await port.start()
    await port.stop()


def saying(status: int, body: bytes, kind: bytes = b"application/json") -> AsgiApp:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize(
    ("app", "answered", "failed"),
    [
        pytest.param(saying(200, b'{"choices": []}'), 1, 0, id="whole"),
        pytest.param(saying(200, b"data: {}", b"text/event-stream; charset=utf-8"), 1, 0, id="stream"),
        pytest.param(saying(200, b": keep-alive", b"text/event-stream"), 1, 0, id="stream-that-begins-with-a-comment"),
        pytest.param(saying(200, b"RIFF", b"audio/wav"), 1, 0, id="of-another-type"),
        pytest.param(saying(204, b""), 1, 0, id="empty"),
        pytest.param(saying(400, b'{"error": {}}'), 0, 0, id="the-clients-fault"),
        pytest.param(saying(500, b'{"error": {}}'), 0, 1, id="status-500"),
        pytest.param(saying(503, b""), 0, 1, id="status-503-without-a-body"),
        pytest.param(saying(200, b'data: {"error": {}}', b"text/event-stream"), 0, 1, id="stream-that-begins-with-an-error"),
        pytest.param(saying(200, b"\x00\xff}{", b"text/event-stream"), 0, 1, id="stream-of-garbage"),
        pytest.param(saying(200, b"\x00\xff}{"), 0, 1, id="garbage"),
    ],
)
async def test_answers_and_failures_are_counted(app: AsgiApp, answered: int, failed: int) -> None:
    guard = Guard(app, token=TOKEN)
    await Exchange(token=TOKEN).run(guard)
    assert (guard.answered, guard.failed_in_row) == (answered, failed)


async def test_an_answer_that_breaks_off_is_a_failure() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ConnectionError("cut")

    guard = Guard(app, token=TOKEN)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await Exchange(token=TOKEN).run(guard)
    assert (guard.answered, guard.failed_in_row) == (0, 2)


async def test_an_answer_ends_a_row_of_failures_and_looks_at_the_replica_do_not() -> None:
    answers = iter([saying(500, b""), saying(500, b""), saying(200, b""), saying(200, b"")])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await next(answers)(scope, receive, send)

    guard = Guard(app, token=TOKEN)
    seen = []
    for method in ("POST", "POST", "GET", "POST"):
        await Exchange(token=TOKEN, method=method).run(guard)
        seen.append((guard.answered, guard.failed_in_row))
    assert seen == [(0, 1), (0, 2), (0, 2), (1, 0)]
