"""Streams that hold a permit, and the admission of a platform without limits."""

from __future__ import annotations

from typing import Self

from serve_app.config_auth import ApiKeyConfig
from serve_app.limits.permit import UNLIMITED, Permit
from serve_app.sse import ByteStream


class PermittedStream:
    """Passes a stream on and gives its permit back when the stream ends, breaks or is closed.

    An object rather than a generator: closing it must work also before anything was read.
    """

    def __init__(self, chunks: ByteStream, permit: Permit) -> None:
        self._chunks = chunks
        self._permit = permit

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes."""
        try:
            return await self._chunks.__anext__()
        except BaseException:
            self._permit.release()
            raise

    async def aclose(self) -> None:
        """Close the stream and give the permit back."""
        self._permit.release()
        await self._chunks.aclose()


class Unlimited:
    """Admits everybody."""

    async def admit(self, _: ApiKeyConfig) -> Permit:
        """Return the permit that bounds nothing."""
        return UNLIMITED
