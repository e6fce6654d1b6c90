"""Streams on their way to a client: a replica's, which holds a lease, and any that is observed."""

from __future__ import annotations

import asyncio
import logging
from typing import Self

from serve_app.attempts import Attempt
from serve_app.pool import Lease
from serve_app.rollout.telemetry import Outcome
from serve_app.sse import BLANK_LINE, MOST_EVENT_BYTES, ByteStream, error_event, whole_length
from serve_app.stream_ends import has_last_event, holds_last_event
from serve_app.upstream import ReplicaUnreachable, UpstreamResponse

logger = logging.getLogger("ray.serve")

LOST_IDLE_S = 5.0  # silence that ends a stream whose replica the directory has forgotten


class LeasedStream:
    """Yields whole events; gives the lease back when the stream ends, breaks or is closed, also before it began.

    A connection that breaks, or falls silent, ends in an error event, never silently; so does a body that ends without
    the last event of its API. Only whole events are passed on, because after half
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
        self._partial = bytearray()
        self._partial_since_s = 0.0  # since when no event has become whole, while one is partial
        self._last = b""  # the latest events that had to be put together
        self._is_over = False
        self._is_waiting = False  # for the replica, not for the client
        self._idle_timeout_s = 0.0
        self._stalled_s = 0.0  # how long the replica was silent when that was too long
        self._timer: asyncio.TimerHandle | None = None
        self.is_broken = False  # the replica failed: what was returned last is the error event

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

    def watch(self, idle_timeout_s: float) -> Self:
        """Have the stream end when no event becomes whole for so long, 0: never; at a lost replica much earlier."""
        self._idle_timeout_s = idle_timeout_s
        self._lease.on_lost = self._look
        self._look()
        return self

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
            return self._break(err)

    async def _piece(self) -> bytes:
        if self._first is not None:
            data, self._first = self._first, None
            return data
        self._is_waiting = True
        data = await self._response.chunk()
        self._is_waiting = False
        self._attempt.piece(data)
        return data

    def _whole_of(self, data: bytes) -> bytes:
        """Return what is whole of the data so far, and all that is left at the stream's end."""
        if not data:
            return self._finish()
        partial = self._partial
        # What was searched before is not searched again, but a blank line may have been cut in two.
        searched = max(0, len(partial) - 3)
        had_some = bool(partial)
        partial += data
        end = whole_length(partial, searched)
        if end or not had_some:
            self._partial_since_s = self._attempt.last_s
        if not end:
            if len(partial) > MOST_EVENT_BYTES:
                raise ReplicaUnreachable(f"an event has more than {MOST_EVENT_BYTES} bytes")
            return b""
        self._last = bytes(partial[:end])
        del partial[:end]
        return self._last

    def _finish(self) -> bytes:
        """Return what is left at an orderly end. Raises ReplicaUnreachable where that is not the end of the answer."""
        rest = bytes(self._partial)
        if holds_last_event(self._path, rest):
            rest += BLANK_LINE  # without one, readers may not take it for an event
        elif has_last_event(self._path):
            if not self._has_ended():
                raise ReplicaUnreachable("the stream ended before its last event")
            rest = b""  # nothing that a client could read
        self._partial.clear()
        self._end(Outcome.OK)
        return rest

    def _has_ended(self) -> bool:
        return holds_last_event(self._path, self._last) or holds_last_event(self._path, self._attempt.tail)

    def _break(self, err: Exception) -> bytes:
        """Return the event that tells the client; none where it has had the whole answer before."""
        if self._has_ended():
            self._end(Outcome.OK)
            return b""
        # Whatever it was, the client hears of it; only an unexpected error is worth a stack trace.
        is_odd = not isinstance(err, ReplicaUnreachable)
        logger.warning("the stream from replica %s broke: %s", self._lease.replica_id, err, exc_info=is_odd)
        self._end(Outcome.BROKEN)
        if not self._stalled_s:
            return error_event("the replica that was answering has failed; send the request again", path=self._path)
        message = f"the replica that was answering has sent nothing whole for {self._stalled_s:.0f} s; send the request again"
        return error_event(message, path=self._path, code="stream_stalled", anthropic="timeout_error")

    def _look(self) -> None:
        """End the stream if its replica has been silent for too long, or look again when it would have been."""
        self._stop_looking()
        patience_s = LOST_IDLE_S if self._lease.is_lost else self._idle_timeout_s
        if self._is_over or not patience_s:
            return
        since_s = self._partial_since_s if self._partial else self._attempt.last_s
        silent_s = self._attempt.now_s() - since_s
        if self._is_waiting and silent_s >= patience_s:
            self._stalled_s = silent_s
            self._response.close()  # whoever waits for the next piece hears of it
            return
        # While the client is the one who is slow, its replica is given all the time again.
        next_s = patience_s - silent_s if silent_s < patience_s else patience_s
        self._timer = asyncio.get_running_loop().call_later(next_s, self._look)

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, outcome: Outcome) -> None:
        if not self._is_over:
            self._is_over = True
            self.is_broken = outcome not in (Outcome.OK, Outcome.CANCELLED)
            self._stop_looking()
            self._lease.on_lost = None
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
