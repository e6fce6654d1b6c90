"""BlobStore: small objects by key, each replaced as a whole; and the one in a local folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

from serve_app.errors import Unavailable

PARTIAL = ".partial-"  # a write that was not finished; nobody reads it
RETRY_AFTER_S = 30.0  # a full disk is not emptied sooner
FOLDERS = ("files/file-*", "stores/vs_*")  # nothing else below the root is looked at


class BlobStore(Protocol):
    """Where records and uploads are kept. A write is seen whole or not at all, and is durable when it returns.

    Each call may raise Unavailable.
    """

    async def put(self, key: str, data: bytes) -> None:
        """Store an object in place of what was there."""
        ...

    async def get(self, key: str) -> bytes:
        """Return an object. Raises KeyError when it is not there."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        ...

    async def keys(self) -> list[str]:
        """Return the key of every object."""
        ...


class FolderBlobs:
    """Objects as files below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, key: str, data: bytes) -> None:
        """Write next to the place, then rename: a crash leaves the old object or the new one.

        Raises:
            Unavailable: the disk is full or refuses; the old object stays.
        """
        try:
            await asyncio.to_thread(self._put, key, data)
        except OSError as err:
            said = f"uploads cannot be kept now: {err.strerror}; whoever runs this frees space where vector_stores.uri is"
            raise Unavailable(said, retry_after_s=RETRY_AFTER_S) from err

    async def get(self, key: str) -> bytes:
        """Return an object. Raises KeyError when it is not there."""
        try:
            return await asyncio.to_thread((self._root / key).read_bytes)
        except FileNotFoundError as err:
            raise KeyError(key) from err

    async def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        await asyncio.to_thread(self._delete, key)

    async def keys(self) -> list[str]:
        """Return the key of every object; writes that a crash cut short are cleared away."""
        return await asyncio.to_thread(self._keys)

    def _put(self, key: str, data: bytes) -> None:
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=PARTIAL, dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except OSError:
            os.unlink(name)  # what there is of it would take up a full disk until the next start
            raise
        _sync(target.parent)

    def _delete(self, key: str) -> None:
        target = self._root / key
        target.unlink(missing_ok=True)
        if target.parent.is_dir():
            _sync(target.parent)

    def _keys(self) -> list[str]:
        folders = [folder for pattern in FOLDERS for folder in self._root.glob(pattern)]
        found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        for path in found:
            if path.name.startswith(PARTIAL):
                path.unlink(missing_ok=True)
        for folder in folders:
            if not any(path.is_file() for path in folder.rglob("*")):
                shutil.rmtree(folder)
        return [path.relative_to(self._root).as_posix() for path in found if not path.name.startswith(PARTIAL)]


def _sync(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
