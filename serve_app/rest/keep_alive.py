"""KeepAlive: a late answer's stream is begun before the answer is here, so that nothing on the way takes it for dead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from serve_app.gateway import Reply
from serve_app.rest.answer import Answer


class KeepAlive:
    """Waits for a reply; each ``every_s`` seconds that it is not here, the client gets a comment.

    ``settle`` fixes who will answer before the first comment, because the headers that go before it say so. While it
    returns False nobody can be named, and nothing is sent. An answer in time costs one timer.
    """

    def __init__(self, answer: Answer, settle: Callable[[], bool], *, every_s: float) -> None:
        self._answer = answer
        self._settle = settle
        self._every_s = every_s
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def wait(self, work: Awaitable[Reply]) -> Reply:
        """Return what ``work`` returns, once no comment is on its way any more. Raises what it raises."""
        timer = asyncio.get_running_loop().call_later(self._every_s, self._begin)
        try:
            reply = await work
        except asyncio.CancelledError:
            if self._task is not None:
                self._task.cancel()
            raise
        except BaseException:
            await self._stop()
            raise
        finally:
            timer.cancel()
        try:
            await self._stop()
        except BaseException:
            if not isinstance(reply.body, bytes):  # nobody else knows of it yet
                await reply.body.aclose()
            raise
        return reply

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._send_comments())

    async def _stop(self) -> None:
        """Let a comment that is being sent be sent: half of one would spoil the stream."""
        self._over.set()
        if self._task is not None:
            await self._task

    async def _send_comments(self) -> None:
        while not self._over.is_set():
            if not self._answer.is_started and self._settle():
                await self._answer.begin_stream()
            if self._answer.is_started:
                await self._answer.keep_alive()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), self._every_s)
