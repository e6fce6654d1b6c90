"""AdapterHost: between a replica's guarded port and its engine's app, it has a request's LoRA adapter loaded first."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import deque
from urllib.parse import unquote

from deployments.llm.adapter_shelf import AdapterShelf, CannotLoad, Place
from deployments.llm.engine import CURRENT_ADAPTER, AsgiApp, Message, Receive, Scope, Send
from serve_app.contracts import (
    ADAPTER_HEADER,
    ADAPTER_REVISION_HEADER,
    ADAPTER_SOURCE_HEADER,
    ADAPTER_UNAVAILABLE_HEADER,
    AdapterTag,
)

logger = logging.getLogger("ray.serve")

_KEY = ADAPTER_HEADER.encode()
_SOURCE = ADAPTER_SOURCE_HEADER.encode()
_REVISION = ADAPTER_REVISION_HEADER.encode()
_KEY_FORM = re.compile(r"[a-z0-9-]+/[a-z0-9-]+")


class AdapterHost:
    """ASGI wrapper: requests without an adapter pass, others wait until theirs is loaded, and hold it while they run."""

    def __init__(self, app: AsgiApp, shelf: AdapterShelf | None) -> None:
        """``shelf``: None where the engine has no room for adapters."""
        self._app = app
        self._shelf = shelf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http" and any(name == _KEY for name, _ in scope["headers"]):
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        tag, shelf = adapter_of(scope), self._shelf
        if tag is None or shelf is None:
            # A Router may know of an adapter before this replica has made way for one whose engine takes some.
            logger.warning("a request's adapter was refused: this engine takes none, or its headers are wrong")
            await _refuse(send, tag)
            return
        if (place := shelf.at_once(tag)) is None:
            line = _Line(receive)
            try:
                place = await line.take(shelf, tag)
            except CannotLoad:
                await _refuse(send, tag)
                return
            if place is None:
                return  # the client has left
            receive = line.receive
        token = CURRENT_ADAPTER.set(place.adapter)
        try:
            await self._app(scope, receive, send)
        finally:
            CURRENT_ADAPTER.reset(token)
            shelf.give_back(place)


class _Line:
    """A request's connection while it waits: what comes meanwhile is kept, and a client that leaves waits no longer."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()

    async def take(self, shelf: AdapterShelf, tag: AdapterTag) -> Place | None:
        """Return the adapter's place, or None when the client has left. Raises CannotLoad."""
        taking = asyncio.create_task(shelf.take(tag))
        leaving = asyncio.create_task(self._until_left())
        place = None
        try:
            await asyncio.wait({taking, leaving}, return_when=asyncio.FIRST_COMPLETED)
            place = taking.result() if taking.done() else None
        finally:
            leaving.cancel()
            taking.cancel()
            await asyncio.wait({taking, leaving})
            if place is None and not taking.cancelled() and taking.exception() is None:
                shelf.give_back(taking.result())  # it came while the client left
        return place

    async def receive(self) -> Message:
        """Return what the client has sent next."""
        return self._kept.popleft() if self._kept else await self._receive()

    async def _until_left(self) -> None:
        while (message := await self._receive())["type"] != "http.disconnect":
            self._kept.append(message)
        self._kept.append(message)


def adapter_of(scope: Scope) -> AdapterTag | None:
    """Return what the request's headers say of its adapter; None where that is nothing, or not whole."""
    headers = {name: unquote(value.decode("latin-1")) for name, value in scope["headers"] if name.startswith(_KEY)}
    key, source, revision = (headers.get(name, "") for name in (_KEY, _SOURCE, _REVISION))
    return AdapterTag(key, source, revision) if _KEY_FORM.fullmatch(key) and source and revision else None


async def _refuse(send: Send, tag: AdapterTag | None) -> None:
    name = f"adapter {tag.key!r}" if tag is not None else "the request's adapter"
    message = f"{name} cannot be loaded by this replica"
    error = {"message": message, "type": "server_error", "param": "model", "code": "adapter_unavailable"}
    headers = [(b"content-type", b"application/json"), (ADAPTER_UNAVAILABLE_HEADER.encode(), b"1")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})
