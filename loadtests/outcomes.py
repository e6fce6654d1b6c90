"""Outcomes: what became of a request, by the class that a team looks for first."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What became of one request."""

    OK = "ok"
    UNAUTHENTICATED = "unauthenticated"  # 401
    RATE_LIMITED = "rate_limited"  # 429
    CLIENT_ERROR = "client_error"  # any other status from 300 to 499
    SERVER_ERROR = "server_error"  # 5xx
    TIMEOUT = "timeout"  # longer than `target.timeout`
    DNS = "dns"  # the host has no address
    CONNECT = "connect"  # refused, unreachable, or no TLS
    BROKEN = "broken"  # the answer ended early, or is none
    ERROR_EVENT = "error_event"  # a stream said that it failed
    UNFINISHED = "unfinished"  # still open when the run was over


# These say that a request took longer than any that have a time, so percentiles count them as endless.
ENDLESS = frozenset({Outcome.TIMEOUT, Outcome.UNFINISHED})


class RequestFailed(Exception):
    """A request without a good answer.

    Attributes:
        outcome: its class.
        status: the status of the answer, or None.
        retry_after_s: what a 429 or 503 asked for, or None.
    """

    def __init__(
        self, outcome: Outcome, message: str, *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.status = status
        self.retry_after_s = retry_after_s

    def __repr__(self) -> str:
        # Locust groups failures by this text.
        return f"{self.outcome}: {self}"


def of_status(status: int) -> Outcome:
    """Return the class of an HTTP status."""
    if 200 <= status < 300:
        return Outcome.OK
    if status in (401, 429):
        return Outcome.UNAUTHENTICATED if status == 401 else Outcome.RATE_LIMITED
    return Outcome.SERVER_ERROR if status >= 500 else Outcome.CLIENT_ERROR
