"""HeldAnswer: an answer whose head waits for its first bytes, so that what a dead engine says can still be taken back."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from deployments.llm.engine import Message, Send
from serve_app.contracts import LOST_HEADER
from serve_app.stream_ends import is_error_event


class HeldAnswer:
    """Passes the messages of one answer on.

    vLLM answers requests whose engine dies with status 500, or with a stream whose first event is an error. No byte of an
    answer has been sent then: the Router is told that the request is lost, as if the whole replica had died, and may send it
    to another one.
    """

    def __init__(self, send: Send, *, is_dead: Callable[[], bool], on_bytes: Callable[[], None]) -> None:
        """``on_bytes``: called once, when the first bytes are here."""
        self._send = send
        self._is_dead = is_dead
        self._on_bytes = on_bytes
        self._head: Message | None = None
        self._is_lost = False
        self.is_good: bool | None = None  # whether it began as an answer does; None: not begun, or the client's own fault

    # Not async: it runs for each token of a stream, and a coroutine of its own would be most of its cost.
    def __call__(self, message: Message) -> Awaitable[None]:
        """Send a message of the answer, sooner or later."""
        if self._head is None and not self._is_lost and message["type"] != "http.response.start":
            return self._send(message)
        return self._begin(message)

    async def _begin(self, message: Message) -> None:
        if self._is_lost:
            return
        if (head := self._head) is None:
            self._head = message
            return
        self._head = None
        body = message.get("body", b"")
        if body:
            self._on_bytes()
        is_failure = head["status"] >= 500 or is_error_event(body)
        if is_failure or head["status"] < 400:
            self.is_good = not is_failure and _is_readable(head, body)
        if is_failure and self._is_dead():
            self._is_lost = True
            await self._tell_lost()
            return
        await self._send(head)
        await self._send(message)

    async def _tell_lost(self) -> None:
        error = {"message": "the engine of this replica has died", "type": "server_error", "param": None, "code": "lost"}
        headers = [(b"content-type", b"application/json"), (LOST_HEADER.encode(), b"1")]
        await self._send({"type": "http.response.start", "status": 503, "headers": headers})
        await self._send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})


def _is_readable(head: Message, body: bytes) -> bool:
    """Whether an answer begins as its type does; of other types than JSON and events, nothing is known."""
    kind: bytes = next((value for name, value in head["headers"] if name.lower() == b"content-type"), b"")
    if not body:
        return True
    if kind.startswith(b"text/event-stream"):
        return body.startswith((b"data:", b"event:", b"id:", b"retry:", b":"))
    return not kind.startswith(b"application/json") or body.lstrip()[:1] in (b"{", b"[", b'"')
