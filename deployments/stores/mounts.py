"""The folder of a store, told apart from what is left in its place when its volume goes away."""

from __future__ import annotations

import asyncio
import os

Identity = tuple[int, int] | None  # of a folder: file system and file number


class StoreFolder:
    """Remembers which folder a store's collections were found in.

    Where a volume is no longer mounted there is an empty folder, or none, in which nothing is missing by mistake: who asks
    must hear that the store is away, not that it is empty, and what is written there would be lost when the volume is back.
    An object store has no such place.
    """

    def __init__(self, uri: str) -> None:
        path = uri.removeprefix("file://")
        self._path = None if "://" in path else os.path.abspath(path)
        self._known: Identity = None

    async def identity(self) -> Identity:
        """Return which folder is there now; None: none that can be told. A network file system may take its time to say."""
        if self._path is None:
            return None
        try:
            found = await asyncio.to_thread(os.stat, self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def remember(self, identity: Identity) -> None:
        """Take a folder for the right one: a collection was found in it."""
        self._known = identity or self._known

    def is_another(self, identity: Identity) -> bool:
        """Whether this is not the folder in which collections were found before."""
        return self._known is not None and identity != self._known
