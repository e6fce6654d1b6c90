"""A file on its way to the disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from serve_app.storage.digests import RunningDigest
from serve_app.storage.journal import Journal
from serve_app.storage.ranges import Span, block_count, missing_spans
from serve_app.storage.remote import RemoteFile


class PartialFile:
    """A sparse file of the final size, which several threads fill; the journal says which blocks of it are there."""

    def __init__(self, remote: RemoteFile, index: int, *, folder: Path, journal: Journal, block_bytes: int) -> None:
        """Take over what an earlier download has left. Raises OSError."""
        self.remote = remote
        self.path = folder / remote.name
        self._index = index
        self._journal = journal
        self._block_bytes = block_bytes
        is_there = self.path.is_file() and self.path.stat().st_size == remote.size
        self._done = set(journal.done.get(index, ())) if is_there else set()
        if not is_there:
            self._make()
        self._left = block_count(remote.size, block_bytes) - len(self._done)
        self._lock = threading.Lock()
        self.digest = RunningDigest(None)

    @property
    def done_bytes(self) -> int:
        """Bytes that are there."""
        return self.remote.size - sum(span.size for span in self.missing(self.remote.size))

    def missing(self, most_bytes: int) -> Iterator[Span]:
        """Yield what is to be fetched, in spans."""
        size = max(most_bytes, self._block_bytes)
        return missing_spans(self.remote.size, self._done, block_bytes=self._block_bytes, most_bytes=size)

    def open(self) -> int:
        """Return a descriptor to write with. Raises OSError."""
        return os.open(self.path, os.O_WRONLY)

    def finish_blocks(self, start: int, end: int) -> None:
        """Note that the blocks which end after ``start`` and up to ``end`` are written. Raises OSError."""
        size = self._block_bytes
        stop = block_count(end, size) if end == self.remote.size else end // size
        for block in range(start // size, stop):
            self._journal.add(self._index, block, min(size, self.remote.size - block * size))
            with self._lock:
                self._done.add(block)
                self._left -= 1

    def take_if_whole(self) -> bool:
        """Return whether all of it is there, once: to the thread that is to verify it."""
        with self._lock:
            is_whole = self._left == 0
            self._left -= is_whole
            return is_whole

    def start_again(self, digest: RunningDigest) -> None:
        """Throw away what is there. Raises OSError."""
        self._journal.forget(self._index)
        self._done.clear()
        self._left = block_count(self.remote.size, self._block_bytes)
        self.digest = digest
        self._make()

    def _make(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("wb") as file:
            file.truncate(self.remote.size)
