"""ContinuedStream: what the client reads while one replica after the other answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

from serve_app.continuation_transcript import Seam, Transcript
from serve_app.observing.record import RequestOutcome, RequestRecord
from serve_app.rollout.telemetry import Outcome
from serve_app.streams import LeasedStream
from serve_app.usage import Usage

CONTINUATIONS = 2  # other replicas that one stream may be sent to: a request that kills engines must not kill all
CONTINUED = b": continued on another replica\n\n"

Resume = Callable[[Transcript, Seam], Awaitable[LeasedStream | None]]


class ContinuedStream:
    """Passes a replica's stream on; when it breaks, the one that ``resume`` returns, as a part of it.

    It ends in an error event where nobody can go on. (An object and no generator, for the reason that ``LeasedStream`` gives.)
    """

    def __init__(self, stream: LeasedStream, transcript: Transcript, *, resume: Resume, record: RequestRecord) -> None:
        self._stream = stream
        self._transcript = transcript
        self._resume = resume
        self._record = record
        self._error = b""  # what the client hears unless the stream goes on; empty while it has not broken
        self._tries = 0
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next whole events."""
        try:
            while not self._is_over:
                if piece := await (self._go_on() if self._error else self._next()):
                    return piece
        except BaseException:
            self._end()
            raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Drop the connection to the replica that answers now, so that it aborts."""
        await self._stream.aclose()
        self._end()

    async def _next(self) -> bytes:
        transcript = self._transcript
        try:
            piece = await anext(self._stream)
        except StopAsyncIteration:
            self._end()  # an answer without its end breaks
            return b""
        if self._stream.is_broken:  # then this is the event that says so
            self._error = piece
            return b""
        kept = transcript.read(piece)
        if transcript.failure:
            self._error = transcript.failure
            await self._stream.aclose()
        return kept

    async def _go_on(self) -> bytes:
        """Return what comes after the break: a comment when another replica goes on, else the answer's end or the error."""
        error, self._error = self._error, b""
        if (rest := self._transcript.closing()) is not None:
            self._record.attempted(Outcome.OK)  # the Router's own: the answer was whole
            self._end()
            return rest
        while self._tries < CONTINUATIONS and (seam := self._transcript.seam()) is not None:
            self._tries += 1
            if (stream := await self._resume(self._transcript, seam)) is not None:
                self._transcript.join(seam)
                self._stream = stream
                self._record.continued += 1
                return CONTINUED
        self._end()
        self._record.outcome = RequestOutcome.BROKEN
        return error

    def _end(self) -> None:
        """Note what the whole answer cost: the last replica told what its part did."""
        if not self._is_over and self._record.continued:
            self._record.usage = Usage(len(self._transcript.prompt), len(self._transcript.tokens))
        self._is_over = True
