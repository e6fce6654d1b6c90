"""Upstream: what a Router needs of the HTTP to its LLM replicas (serve_app/http_upstream.py speaks it)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from serve_app.contracts import AdapterTag, TraceLink


class ReplicaUnreachable(Exception):
    """The replica's port cannot be reached, or the connection broke.

    Attributes:
        was_sent: the replica had the request already, or may have had it.
    """

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class AnswerTooLarge(ReplicaUnreachable):
    """The answer is larger than a Router holds in memory; it would be anywhere, so that no other replica need be asked."""


class NoConnectionLeft(ReplicaUnreachable):
    """This process can open no further connection: no descriptors, ports or memory. That says nothing about the replica."""


class ReplicaDraining(Exception):
    """The replica takes no new work."""


class AdapterMissing(Exception):
    """The replica cannot load the request's adapter."""


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What a replica is sent."""

    method: str
    path: str  # with the query string
    body: bytes
    request_id: str
    content_type: str = "application/json"
    adapter: AdapterTag | None = None  # what the replica must have loaded for it
    trace: TraceLink | None = None  # where the attempt stands in its trace
    timeout_s: float | None = None  # seconds that somebody waits for the answer; None: for as long as it takes


class UpstreamResponse(Protocol):
    """A replica's answer whose headers have arrived."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def content_type(self) -> str:
        """What the body is."""
        ...

    async def chunk(self) -> bytes:
        """Return what has come since the last call, at least one byte; empty at the end of the body.

        Raises:
            ReplicaUnreachable: the connection broke before the end.
        """
        ...

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            ReplicaUnreachable: the connection broke before the end, or what came is not whole.
            AnswerTooLarge: there is more of it than a Router holds in memory.
        """
        ...

    def close(self) -> None:
        """Drop the connection unless the body has ended; that makes the replica abort the request.

        Whoever waits for a chunk then gets ReplicaUnreachable.
        """
        ...


class Upstream(Protocol):
    """Opens requests on replicas."""

    async def open(self, url: str, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request; return when the answer's headers are here.

        Raises:
            ReplicaUnreachable: nothing was received.
            ReplicaDraining: the replica refused because it is stopping.
            AdapterMissing: the replica cannot load the adapter.
        """
        ...
