"""Upstream: HTTP from a Router to LLM replicas, as raw bytes."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from serve_app.contracts import DRAINING_HEADER


class ReplicaUnreachable(Exception):
    """The replica's port cannot be reached, or the connection broke.

    Attributes:
        was_sent: the replica had the request already, or may have had it.
    """

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class ReplicaDraining(Exception):
    """The replica takes no new work."""


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What a replica is sent."""

    method: str
    path: str  # with the query string
    body: bytes
    request_id: str


class UpstreamResponse(Protocol):
    """A replica's answer whose headers have arrived."""

    status: int
    content_type: str

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield body bytes as they come. Raises ReplicaUnreachable when the connection breaks."""
        ...

    async def read(self) -> bytes:
        """Return the whole body. Raises ReplicaUnreachable when the connection breaks."""
        ...

    def close(self) -> None:
        """Drop the connection unless the body has ended; that makes the replica abort the request."""
        ...


class Upstream(Protocol):
    """Opens requests on replicas."""

    async def open(self, url: str, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request; return when the answer's headers are here.

        Raises:
            ReplicaUnreachable: nothing was received.
            ReplicaDraining: the replica refused because it is stopping.
        """
        ...


class _AiohttpResponse:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.headers.get("content-type", "application/json")

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as err:
            raise ReplicaUnreachable(str(err)) from err

    async def read(self) -> bytes:
        try:
            return await self._response.read()
        except (aiohttp.ClientError, OSError) as err:
            raise ReplicaUnreachable(str(err)) from err

    def close(self) -> None:
        # A body read to its end has given its connection back to the pool already; closing is then a no-op.
        self._response.close()


def _probed_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket that notices within a minute that its peer's node is gone: nothing else ends such a stream."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if (option := getattr(socket, name, None)) is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


class AiohttpUpstream:
    """Upstream over one aiohttp session per Router; connections are kept alive and unlimited in number."""

    def __init__(self, *, token: str, connect_timeout_s: float = 5.0) -> None:
        self._headers: Mapping[str, str] = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        # A generation may take an hour: only the connect is bounded here, the rest by the request's own deadline.
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=None)
        self._session: aiohttp.ClientSession | None = None

    async def open(self, url: str, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request; return when the answer's headers are here."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60, socket_factory=_probed_socket),
                timeout=self._timeout,
            )
        headers = {**self._headers, "x-request-id": request.request_id}
        try:
            response = await self._session.request(
                request.method, url + request.path, data=request.body, headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as err:
            raise ReplicaUnreachable(str(err), was_sent=False) from err
        except (aiohttp.ClientError, OSError) as err:
            raise ReplicaUnreachable(str(err)) from err
        if response.status == 503 and DRAINING_HEADER in response.headers:
            response.close()
            raise ReplicaDraining(url)
        return _AiohttpResponse(response)

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
