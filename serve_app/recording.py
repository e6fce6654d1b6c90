"""Recording: an answer kept while it passes, to be compared with another one later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from serve_app.engine_errors import UpstreamRejected
from serve_app.sse import ByteStream
from serve_app.stream_ends import is_error_event
from serve_app.upstream import ReplicaUnreachable, UpstreamResponse

MOST_BYTES = 1 << 20  # a longer answer is not compared


class Broken(Exception):
    """The stream broke, or reported an error, after its first byte."""


class Recording:
    """The pieces of one answer: references, no copies. ``ended`` is set when no more will come, complete or not."""

    __slots__ = ("_bytes", "_pieces", "ended", "is_stream")

    def __init__(self, *, is_stream: bool) -> None:
        self.is_stream = is_stream
        self.ended = asyncio.Event()
        self._pieces: list[bytes] | None = []
        self._bytes = 0

    def add(self, piece: bytes) -> None:
        """Keep a piece, unless that makes too much."""
        if self._pieces is None:
            return
        self._bytes += len(piece)
        if self._bytes > MOST_BYTES:
            self._pieces = None
        else:
            self._pieces.append(piece)

    def forget(self) -> None:
        """Keep nothing, from now on either."""
        self._pieces = None

    @property
    def data(self) -> bytes | None:
        """What was kept; None if that is not all that passed."""
        return None if self._pieces is None else b"".join(self._pieces)


def recorded(body: bytes) -> Recording:
    """Return the recording of an answer that came whole."""
    made = Recording(is_stream=False)
    made.add(body)
    made.ended.set()
    return made


async def record(response: UpstreamResponse, *, on_first: Callable[[], None]) -> Recording:
    """Return an answer that nobody waits for; ``on_first`` is called when it begins, or when it is there as a whole.

    Raises:
        UpstreamRejected: the engine refused the request, or a stream begins with an error.
        ReplicaUnreachable: the connection broke before the first byte.
        Broken: that, or an error, came after it.
    """
    if response.status < 300 and response.content_type.startswith("text/event-stream"):
        return await _recorded_stream(response, on_first)
    body = await response.read()
    if response.status >= 300:
        raise UpstreamRejected(response.status, body)
    on_first()
    return recorded(body)


async def _recorded_stream(response: UpstreamResponse, on_first: Callable[[], None]) -> Recording:
    made = Recording(is_stream=True)
    before, piece = b"", await response.chunk()
    if is_error_event(piece):
        raise UpstreamRejected(500, piece)
    on_first()
    try:
        while piece:
            made.add(piece)
            if is_error_event(before + piece):
                raise Broken(piece)
            before, piece = piece, await response.chunk()
    except ReplicaUnreachable as err:
        raise Broken(str(err)) from err
    return made


class RecordedStream:
    """Passes a stream on and keeps what passed. (An object and no generator, for the reason that ``LeasedStream`` gives.)"""

    def __init__(self, stream: ByteStream, recording: Recording) -> None:
        self._stream = stream
        self._recording = recording

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next whole events."""
        try:
            piece = await anext(self._stream)
        except BaseException:
            self._recording.ended.set()
            raise
        self._recording.add(piece)
        return piece

    async def aclose(self) -> None:
        """Free what is behind the stream; what has passed so far is all there is."""
        self._recording.ended.set()
        await self._stream.aclose()
