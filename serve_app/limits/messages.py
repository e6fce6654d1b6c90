"""What Routers and the ledger tell each other: one exchange carries reports, wishes and grants for all keys at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from serve_app.config_auth import ApiKeyConfig


class Quota(NamedTuple):
    """A key's limits; None means that there is none."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None

    @property
    def is_unlimited(self) -> bool:
        """Whether nothing needs to be counted."""
        return self == UNLIMITED_QUOTA


UNLIMITED_QUOTA = Quota(None, None, None)


def quota_of(caller: ApiKeyConfig) -> Quota:
    """Return the limits of a key."""
    return Quota(caller.requests_per_minute, caller.tokens_per_minute, caller.concurrent_requests)


class Limit(StrEnum):
    """Which limit is reached."""

    REQUESTS = "requests per minute"
    TOKENS = "tokens per minute"
    CONCURRENCY = "concurrent requests"


class Tally(NamedTuple):
    """A sum that only grows, and how much of it a ledger has confirmed: repeated or lost reports count once."""

    total: int
    confirmed: int


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What a Router has done with a key, and what it wants for it."""

    quota: Quota
    returned: int  # requests that were granted and not used
    slots: int  # places among the concurrent requests that the Router holds, in use or free
    tokens: Tally
    alone: Tally  # requests admitted while no ledger answered
    want_requests: int = 0
    want_slots: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """A Router's side of an exchange. Numbers rise, so that what arrives late is known as such."""

    router: str
    number: int
    epoch: str  # of the ledger that answered last, or empty
    keys: Mapping[str, KeyReport] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What a Router may do with a key from now on, and how much of its limits is left over all Routers."""

    requests: int
    slots: int
    requests_left: float
    tokens_left: float
    slots_left: int
    tokens: int  # confirmed
    alone: int  # confirmed
    refused: Limit | None = None
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """The ledger's side of an exchange."""

    epoch: str
    routers: int  # that are heard of
    is_settled: bool  # False while a ledger that has just started still hears what Routers hold
    keys: Mapping[str, KeyGrant] = field(default_factory=dict)
