"""The few ASGI pieces the REST front needs: read a bounded body, send an answer, stream until the client leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any, NoReturn

from serve_app.errors import BadRequest, BodyTooLarge
from serve_app.sse import ByteStream

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]


MAX_DEPTH = 128


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


def header(scope: Scope, name: bytes) -> str | None:
    """Return a request header's value, or None."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def read_body(scope: Scope, receive: Receive, *, limit_bytes: int) -> bytes:
    """Return the request body.

    Raises:
        BodyTooLarge: it is announced as, or turns out, larger than the limit; the rest is not read.
        ClientGone: the client left.
    """
    if _announced_bytes(scope) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    parts: list[bytes] = []
    size, has_more = 0, True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        has_more = message.get("more_body", False)
    return b"".join(parts)


def _announced_bytes(scope: Scope) -> int:
    announced = header(scope, b"content-length") or ""
    if not (announced.isascii() and announced.isdigit()):
        return 0  # unknown: the body is counted as it comes
    return int(announced[:18])  # Python refuses to read numbers of thousands of digits


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in a body. Raises BadRequest saying where it is malformed."""
    try:
        document = json.loads(raw, parse_constant=_refuse_constant)
    except json.JSONDecodeError as err:
        raise BadRequest(f"the body is not valid JSON: {err.msg} at line {err.lineno} column {err.colno}") from err
    except (ValueError, RecursionError) as err:
        message = "it must be UTF-8, with numbers of sensible size, and not nested without end"
        raise BadRequest(f"the body is not valid JSON: {message}") from err
    if not isinstance(document, dict):
        raise BadRequest(f"the body must be a JSON object, got {type(document).__name__}")
    # Each level opens a bracket, so that few bodies need a closer look.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _check_depth(document)
    return document


def _check_depth(document: dict[str, Any]) -> None:
    """Raise BadRequest for what the parser of whoever reads the body next might fail on."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
        if not level:
            return
    raise BadRequest(f"the body is nested more than {MAX_DEPTH} levels deep")


def _inside(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


async def send_bytes(send: Send, status: int, body: bytes, *, headers: HeaderList) -> None:
    """Send a whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_chunks(send: Send, chunks: ByteStream) -> None:
    """Send chunks as they come down an answer that has begun, and end it; the source is closed however this ends."""
    try:
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await chunks.aclose()


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work``; cancel it as soon as the client leaves, so that an engine does not compute for nobody.

    Raises:
        ClientGone: the client left first.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Agree to start-up and shut-down; nothing of ours hangs on them."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
