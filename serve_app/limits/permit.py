"""Permit: what one admitted request holds until its stream has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from serve_app.config_auth import ApiKeyConfig
from serve_app.errors import Headers


class Permit:
    """Leave to do one request.

    Attributes:
        counts_tokens: whether the caller's tokens are limited, so that ``charge`` must hear of them.
        headers: how much of the caller's limits is left, as OpenAI's `x-ratelimit-*` headers say it.
    """

    __slots__ = ("_charge", "_release", "counts_tokens", "headers")

    def __init__(
        self,
        *,
        headers: Headers = (),
        charge: Callable[[int], None] | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.headers = headers
        self.counts_tokens = charge is not None
        self._charge = charge
        self._release = release

    def charge(self, tokens: int) -> None:
        """Count tokens of the prompt and the answer against the caller's limit."""
        if self._charge is not None and tokens > 0:
            self._charge(tokens)

    def release(self) -> None:
        """Give the place among the concurrent requests back; a second call does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()


UNLIMITED = Permit()


class Admission(Protocol):
    """Decides whether a caller's request may go on."""

    async def admit(self, caller: ApiKeyConfig) -> Permit:
        """Return the permit; the caller releases it. Raises RateLimited: a limit of the key is reached."""
        ...
