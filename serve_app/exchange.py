"""Connection and Exchange: HTTP/1.1 to a replica on a bare asyncio protocol, one request at a time.

Between a token's arrival and its reader stand one parser in C and one future: a client library's own layers cost more
per token than everything else that a Router does (docs/benchmarks.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from serve_app.answer_head import MOST_BYTES, AnswerHead
from serve_app.upstream import ReplicaUnreachable
from serve_app.whole_answer import read_whole

PAUSE_BYTES = 256 * 1024  # a client that reads slowly holds its replica up, not the Router's memory
HEAD_S = 30.0  # from the first byte of an answer to the end of its headers


class Exchange:
    """A request that has been sent and the answer to it, as it comes. Implements UpstreamResponse."""

    __slots__ = (
        "__weakref__",
        "_connection",
        "_error",
        "_head",
        "_head_timer",
        "_parser",
        "_parts",
        "_size",
        "_unread",
        "_waiter",
        "is_complete",
        "is_untouched",
        "may_stay_open",
    )

    def __init__(self, connection: Connection) -> None:
        self.is_untouched = True  # no byte of an answer has come
        self.may_stay_open = False  # the connection, after the answer
        self.is_complete = False
        # The parser holds this exchange's methods: a cycle, which must be cut by hand, or every stream stays in memory
        # until the garbage collector comes round.
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._connection = connection
        self._head = AnswerHead()
        self._head_timer: asyncio.TimerHandle | None = None  # only where the head does not come in one piece
        self._parts: list[bytes] = []
        self._size = 0
        self._unread = 0  # bytes since the last one of the body: nothing that an engine sends is as long without any
        self._waiter: asyncio.Future[None] | None = None
        self._error: ReplicaUnreachable | None = None

    @property
    def status(self) -> int:
        """The answer's status, once its head is here."""
        return self._head.status

    @property
    def content_type(self) -> str:
        """What the body is, the kind in lower case; JSON where the answer does not say it."""
        return self._head.content_type

    def header(self, name: bytes) -> str | None:
        """Return a header of the answer by its lower-case name, or None."""
        value = self._head.get(name)
        return None if value is None else value.decode("latin-1")

    async def head(self) -> None:
        """Wait until status and headers are here.

        Raises:
            ReplicaUnreachable: the connection breaks first, or they are not complete ``HEAD_S`` after their first byte.
        """
        while not self._head.is_complete:
            await self._wait()

    async def chunk(self) -> bytes:
        """Return what has come since the last call, waiting for at least one byte; empty at the end.

        Raises:
            ReplicaUnreachable: the connection broke before the body's end; what came before is returned first.
        """
        while not self._parts:
            if self.is_complete:
                return b""
            await self._wait()
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if self._size > PAUSE_BYTES:
            self._connection.resume()
        self._size = 0
        return data

    async def read(self) -> bytes:
        """Return the whole body, as ``read_whole`` does."""
        return await read_whole(self.chunk)

    def close(self) -> None:
        """Drop the connection unless the answer has ended; that makes the replica abort the request."""
        self._parts.clear()
        if not self.is_complete:
            self.drop("the Router dropped the connection")

    def drop(self, why: str) -> None:
        """Drop the connection; whoever waits for the answer is told why."""
        if self._error is None:
            self._error = ReplicaUnreachable(why)
        self._end_parsing()
        self._connection.abort()
        self.wake()

    def feed(self, data: bytes) -> None:
        """Parse what has come. Raises HttpParserError or HttpParserUpgrade for what is no answer to this request."""
        self.is_untouched = False
        if self._parser is None:
            return
        size = self._size
        self._parser.feed_data(data)
        if self.is_complete:
            self._end_parsing()
        elif self._size == size:
            self._take_unread(len(data))
        else:
            self._unread = 0

    def wake(self) -> None:
        """Let the reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: ReplicaUnreachable, *, is_end: bool = False) -> None:
        """Take the end of the connection: an answer without any length is whole by an orderly one, any other breaks."""
        if not self.is_complete and self._error is None:
            if is_end and self._head.is_complete and not self._head.has_length:
                self.is_complete = True
            else:
                self._error = error
        self._end_parsing()
        self.wake()

    def _take_unread(self, size: int) -> None:
        """Bound what comes of no body: a head that does not end, extensions of chunks, trailers."""
        self._unread += size
        if self._unread > 2 * MOST_BYTES:
            raise HttpParserError(f"{self._unread} bytes without any of a body")
        if not self._head.is_complete and self._head_timer is None:
            why = f"the headers were not complete {HEAD_S:.0f} s after their first byte"
            self._head_timer = asyncio.get_running_loop().call_later(HEAD_S, self.drop, why)

    def _end_parsing(self) -> None:
        self._parser = None
        self._end_head_timer()

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # What the parser calls, under its names.

    def on_message_begin(self) -> None:
        """After the answer there must be no other."""
        if self.is_complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._head.add(name, value)

    def on_headers_complete(self) -> None:
        """Take the end of the headers."""
        if self._parser is not None:
            self._head.end(self._parser.get_status_code(), self._parser.get_http_version())
            if self._head.is_complete:
                self._end_head_timer()

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > PAUSE_BYTES:
            self._connection.pause()

    def on_message_complete(self) -> None:
        """Take the end of the answer."""
        if self._head.is_complete and self._parser is not None:
            self.is_complete = True
            self.may_stay_open = self._parser.should_keep_alive()


class Connection(asyncio.Protocol):
    """One connection to a replica. ``on_idle`` and ``on_lost`` tell the pool when it is free, and when it is gone."""

    def __init__(self, *, on_idle: Callable[[Connection], None], on_lost: Callable[[Connection], None]) -> None:
        self.idle_since_s = 0.0
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._exchange: Exchange | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent; a transport that is closing would swallow it."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes) -> Exchange:
        """Send a request, head and body, on a connection that is free."""
        exchange = Exchange(self)
        if self._transport is None or self._transport.is_closing():
            exchange.fail(ReplicaUnreachable("the replica closed the connection", was_sent=False))
            return exchange
        self._exchange = exchange
        self._transport.write(request)
        return exchange

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Let the replica wait with more."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Let the replica go on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _finish(self, exchange: Exchange) -> None:
        self._exchange = None
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size():  # answered before it was asked: the rest would never leave
            self._transport.abort()
        elif exchange.may_stay_open:
            self._transport.resume_reading()
            self._on_idle(self)
        else:
            self._transport.close()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        """Parse what has come; a replica that speaks unasked, or no HTTP, is not talked to any longer."""
        exchange = self._exchange
        if exchange is None:
            self.abort()
            return
        try:
            exchange.feed(data)
        except (HttpParserError, HttpParserUpgrade) as err:
            self._exchange = None
            exchange.fail(ReplicaUnreachable(f"the answer is no HTTP that was asked for: {err.__context__ or err}"))
            self.abort()
            return
        if exchange.is_complete:
            self._finish(exchange)
        exchange.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchange and the pool."""
        self._transport = None
        self._on_lost(self)
        if (exchange := self._exchange) is not None:
            self._exchange = None
            message = str(exc) if exc else "the replica closed the connection"
            exchange.fail(ReplicaUnreachable(message), is_end=exc is None)
