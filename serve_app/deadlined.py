"""DeadlinedStream: an answer's stream that ends when its request's time is over, and says so."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Self

from serve_app.call import Call, Reply
from serve_app.errors import DeadlineExceeded
from serve_app.sse import ByteStream, error_event


def deadlined(reply: Reply, call: Call) -> Reply:
    """Return the reply; its stream, if it is one and there is a deadline, ends by then."""
    if isinstance(reply.body, bytes) or not call.deadline.is_set:
        return reply
    return dataclasses.replace(reply, body=DeadlinedStream(reply.body, call))


class DeadlinedStream:
    """Passes a stream on; when the deadline passes it closes it, so that the replica aborts, and ends in an error event.

    An object rather than a generator: closing it must work also before anything was read.
    """

    def __init__(self, stream: ByteStream, call: Call) -> None:
        self._stream = stream
        self._call = call
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes, or the event that says that time is over."""
        if self._is_over:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(self._call.deadline.left_s()) as limit:
                return await anext(self._stream)
        except TimeoutError:
            if not limit.expired():
                raise
        self._is_over = True
        await self._stream.aclose()
        return self._told()

    async def aclose(self) -> None:
        """Close the stream."""
        self._is_over = True
        await self._stream.aclose()

    def _told(self) -> bytes:
        error = self._call.deadline.exceeded("stream")
        self._call.record.fail(error)
        return error_event(error.message, path=self._call.path, code=DeadlineExceeded.code, anthropic="timeout_error")
