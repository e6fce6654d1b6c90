"""Streams on their way to a client: a replica's, which holds a lease, and any that is observed."""

from __future__ import annotations

import asyncio
import logging
from typing import Self

from serve_app.attempts import Attempt
from serve_app.pool import Lease
from serve_app.rollout.telemetry import Outcome
from serve_app.sse import BLANK_LINE, ByteStream, error_event, whole_length
from serve_app.upstream import ReplicaUnreachable, UpstreamResponse

logger = logging.getLogger("ray.serve")


class LeasedStream:
    """Yields whole events; gives the lease back when the stream ends, breaks or is closed, also before it began.

    A connection that breaks ends in an error event, never silently. Only whole events are passed on, because after half
    a one SDKs would fail on the half and never see the error. (A generator would not do: closing one that was never
    started runs none of its code, and a client may leave before its first byte.)
    """

    def __init__(
        self, response: UpstreamResponse, lease: Lease, *, attempt: Attempt, path: str = "", first: bytes | None = None
    ) -> None:
        self._response = response
        self._lease = lease
        self._attempt = attempt
        self._path = path
        self._first = first  # what was read already, to see that there is an answer; None: nothing was
        self._partial = b""
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next whole events."""
        try:
            while not self._is_over:
                if whole := await self._next():
                    return whole
        except BaseException:
            self._end(Outcome.CANCELLED)
            raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Drop the connection, so that the replica aborts, and give the lease back."""
        self._end(Outcome.CANCELLED)

    async def _next(self) -> bytes:
        try:
            data = await self._piece()
            # Engines write whole events, so that as a rule there is nothing to look for and nothing to copy.
            if data.endswith(BLANK_LINE) and not self._partial:
                return data
            return self._whole_of(data)
        except Exception as err:
            # Whatever it was, the client hears of it; only an unexpected error is worth a stack trace.
            is_odd = not isinstance(err, ReplicaUnreachable)
            logger.warning("the stream from replica %s broke: %s", self._lease.replica_id, err, exc_info=is_odd)
            self._end(Outcome.BROKEN)
            return error_event("the replica that was answering has failed; send the request again", path=self._path)

    async def _piece(self) -> bytes:
        if self._first is not None:
            data, self._first = self._first, None
            return data
        data = await self._response.chunk()
        self._attempt.piece(data)
        return data

    def _whole_of(self, data: bytes) -> bytes:
        """Return what is whole of the data so far, and all that is left at the stream's end."""
        if not data:
            self._end(Outcome.OK)
            whole, self._partial = self._partial, b""
            return whole
        # What was searched before is not searched again, but a blank line may have been cut in two.
        searched = max(0, len(self._partial) - 3)
        data = self._partial + data
        end = whole_length(data, searched)
        self._partial = data[end:]
        return data[:end]

    def _end(self, outcome: Outcome) -> None:
        if not self._is_over:
            self._is_over = True
            self._attempt.end(outcome)
            self._response.close()
            self._lease.release()


class ObservedStream:
    """Passes a stream on and tells its attempt what became of it. (An object, for the reason that ``LeasedStream`` gives.)"""

    def __init__(self, stream: ByteStream, attempt: Attempt) -> None:
        self._stream = stream
        self._attempt = attempt

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next whole events."""
        try:
            piece = await anext(self._stream)
        except StopAsyncIteration:
            self._attempt.end(Outcome.OK)
            raise
        except asyncio.CancelledError:
            self._attempt.end(Outcome.CANCELLED)
            raise
        except BaseException:
            self._attempt.end(Outcome.BROKEN)
            raise
        self._attempt.piece(piece)
        return piece

    async def aclose(self) -> None:
        """Free what is behind the stream."""
        self._attempt.end(Outcome.CANCELLED)
        await self._stream.aclose()
