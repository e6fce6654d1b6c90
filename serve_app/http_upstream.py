"""HttpUpstream: kept-alive HTTP/1.1 connections from a Router to its LLM replicas."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import time
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from serve_app.contracts import (
    ADAPTER_HEADER,
    ADAPTER_REVISION_HEADER,
    ADAPTER_SOURCE_HEADER,
    ADAPTER_UNAVAILABLE_HEADER,
    DRAINING_HEADER,
    LOST_HEADER,
    AdapterTag,
    TraceLink,
)
from serve_app.deadline import TIMEOUT_HEADER
from serve_app.errors import BadRequest
from serve_app.exchange import Connection, Exchange
from serve_app.upstream import AdapterMissing, NoConnectionLeft, ReplicaDraining, ReplicaUnreachable, UpstreamRequest

IDLE_S = 60.0  # shorter than replicas keep connections (75 s), or a request could meet its connection's end
DRAINING = DRAINING_HEADER.encode()
LOST = LOST_HEADER.encode()
ADAPTER_UNAVAILABLE = ADAPTER_UNAVAILABLE_HEADER.encode()
# What may stand in a request line; anything else could begin another request.
_TARGET = re.compile(r"[\x21-\x7e\x80-\xff]+")
_VALUE = re.compile(r"[\x20-\x7e\x80-\xff]+")  # the same in a header's value
# A node that is gone says nothing: these find it out within a minute, or its streams would never end. The last one (in
# milliseconds) is for requests that it never acknowledged: probes do not begin while data is under way.
_KEEPALIVE = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 50_000))

_OWN_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)


class _Address:
    """A replica's address with the connections to it; of those that are free, the latest used comes last."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self.host, self.port = parts.hostname or "", parts.port or 80
        except ValueError as err:  # a port that is none, or half a bracket
            raise ReplicaUnreachable(f"{url} is no URL: {err}", was_sent=False) from err
        if parts.scheme != "http" or not self.host:
            raise ReplicaUnreachable(f"{url} is no http:// URL", was_sent=False)
        self.netloc = parts.netloc
        self.connections: set[Connection] = set()
        self.opening = 0
        self.idle: dict[Connection, None] = {}


class HttpUpstream:
    """Upstream over as many connections as there are requests at once. One per Router, on its event loop."""

    def __init__(self, *, token: str, connect_timeout_s: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._token = token
        self._connect_timeout_s = connect_timeout_s
        self._clock = clock
        self._addresses: dict[str, _Address] = {}

    async def open(self, url: str, request: UpstreamRequest) -> Exchange:
        """Send a request; return when the answer's headers are here.

        Raises:
            BadRequest: the URL holds characters that no request line may hold.
            ReplicaUnreachable: nothing was received.
            ReplicaDraining: the replica refused because it is stopping.
            AdapterMissing: the replica cannot load the adapter.
        """
        address = self._addresses.get(url) or _Address(url)
        sent = self._head(address, request) + request.body
        exchange = await self._exchange(url, address, sent)
        if exchange.status == 503:
            _check_refusal(exchange, url)
        return exchange

    async def close(self) -> None:
        """Close every connection."""
        for address in list(self._addresses.values()):
            for connection in list(address.connections):
                connection.abort()
        await asyncio.sleep(0)  # the loop tells the connections in its next turn

    async def _exchange(self, url: str, address: _Address, sent: bytes) -> Exchange:
        """Send the request on a free connection or a new one.

        A free one may have been closed by the replica while the request was on its way. Only a new one can tell that
        from a replica that has died of the request.
        """
        if (free := self._free(address)) is None:
            return await _answered((await self._connect(url, address)).send(sent))
        exchange = free.send(sent)
        try:
            return await _answered(exchange)
        except ReplicaUnreachable as err:
            if not exchange.is_untouched:
                raise
            first = err
        try:
            connection = await self._connect(url, address)
        except ReplicaUnreachable as err:
            raise ReplicaUnreachable(str(err), was_sent=first.was_sent) from err
        return await _answered(connection.send(sent))

    def _head(self, address: _Address, request: UpstreamRequest) -> bytes:
        if not _TARGET.fullmatch(request.path):
            raise BadRequest("the request URL holds spaces or control characters; percent-encode them")
        if not _VALUE.fullmatch(request.content_type):
            raise BadRequest("the content-type header holds control characters")
        adapter = "" if request.adapter is None else _adapter_lines(request.adapter)
        trace = "" if request.trace is None else _trace_lines(request.trace)
        timeout = "" if request.timeout_s is None else f"{TIMEOUT_HEADER}: {request.timeout_s:.3f}\r\n"
        return (
            f"{request.method} {request.path} HTTP/1.1\r\n"
            f"host: {address.netloc}\r\n"
            f"authorization: Bearer {self._token}\r\n"
            f"content-type: {request.content_type}\r\n"
            f"x-request-id: {request.request_id}\r\n"
            f"{adapter}{trace}{timeout}"
            "accept-encoding: identity\r\n"
            f"content-length: {len(request.body)}\r\n\r\n"
        ).encode("latin-1")

    def _free(self, address: _Address) -> Connection | None:
        self._end_old(address)
        while address.idle:
            connection, _ = address.idle.popitem()
            if connection.is_open:
                return connection
        return None

    def _end_old(self, address: _Address) -> None:
        oldest_s = self._clock() - IDLE_S
        while address.idle and (first := next(iter(address.idle))).idle_since_s < oldest_s:
            del address.idle[first]
            first.abort()

    async def _connect(self, url: str, address: _Address) -> Connection:
        def idle(connection: Connection) -> None:
            connection.idle_since_s = self._clock()
            address.idle[connection] = None

        def lost(connection: Connection) -> None:
            address.idle.pop(connection, None)
            address.connections.discard(connection)
            self._forget_if_unused(url, address)

        self._addresses[url] = address
        address.opening += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(on_idle=idle, on_lost=lost), address.host, address.port
                )
            address.connections.add(connection)
            _probe(transport.get_extra_info("socket"))
        except (OSError, TimeoutError, ValueError) as err:  # ValueError: the host is no name that could be looked up
            message = "no connection within the time limit" if isinstance(err, TimeoutError) else str(err)
            is_own = isinstance(err, OSError) and err.errno in _OWN_SHORTAGES
            raise (NoConnectionLeft if is_own else ReplicaUnreachable)(message, was_sent=False) from err
        finally:
            address.opening -= 1
            self._forget_if_unused(url, address)
        return connection

    def _forget_if_unused(self, url: str, address: _Address) -> None:
        # Replicas come and go, each at an address of its own.
        if not address.connections and not address.opening and self._addresses.get(url) is address:
            del self._addresses[url]


def _check_refusal(exchange: Exchange, url: str) -> None:
    """Raise ReplicaDraining, ReplicaUnreachable or AdapterMissing where the replica itself says so; the engine has others."""
    for header, error in ((DRAINING, ReplicaDraining), (LOST, ReplicaUnreachable), (ADAPTER_UNAVAILABLE, AdapterMissing)):
        if exchange.header(header) is not None:
            exchange.close()
            raise error(url)


def _adapter_lines(adapter: AdapterTag) -> str:
    # Percent-encoded, a source is ASCII without spaces and line ends, whatever folders are called.
    lines = (
        (ADAPTER_HEADER, adapter.key),
        (ADAPTER_SOURCE_HEADER, adapter.source),
        (ADAPTER_REVISION_HEADER, adapter.revision),
    )
    return "".join(f"{name}: {quote(value)}\r\n" for name, value in lines)


def _trace_lines(trace: TraceLink) -> str:
    state = f"tracestate: {trace.tracestate}\r\n" if trace.tracestate else ""  # checked when it arrived
    return f"traceparent: {trace.traceparent}\r\n{state}"


async def _answered(exchange: Exchange) -> Exchange:
    try:
        await exchange.head()
    except BaseException:
        exchange.close()
        raise
    return exchange


def _probe(found: socket.socket) -> None:
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if (option := getattr(socket, name, None)) is not None:
            found.setsockopt(socket.IPPROTO_TCP, option, value)
