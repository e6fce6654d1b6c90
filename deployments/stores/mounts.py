"""The folder of a store, told apart from what is left in its place when its volume goes away."""

from __future__ import annotations

import asyncio
import os

from serve_app.errors import Unavailable


class StoreFolder:
    """Remembers which folder a store's collections were found in.

    Where a volume is no longer mounted there is an empty folder, or none, in which nothing is missing by mistake: who asks
    must hear that the store is away, not that it is empty, and what is written there would be lost when the volume is back.
    An object store has no such place and is never asked.
    """

    def __init__(self, uri: str) -> None:
        self._path = None if "://" in uri else uri
        self._known: tuple[int, int] | None = None

    async def remember(self) -> None:
        """Take the folder of now for the right one: a collection was found in it."""
        self._known = await self._identity()

    async def check(self) -> None:
        """Raise Unavailable when another folder is where collections were found before."""
        if self._known is not None and await self._identity() != self._known:
            raise Unavailable(
                "the vector store is not where it was: another folder, or none, is at vector_store.uri; "
                "mount its volume again, or start the replicas anew if it was replaced on purpose"
            )

    async def _identity(self) -> tuple[int, int] | None:
        """Return file system and file number of the folder; a network file system may take its time to say."""
        if self._path is None:
            return None
        try:
            found = await asyncio.to_thread(os.stat, self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino
