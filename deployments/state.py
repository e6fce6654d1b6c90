"""Where Rollouts keeps what must outlive it: in the Ray cluster itself, or in a folder or object store."""

from __future__ import annotations

import asyncio
from typing import Protocol

from autoscaling.feed import ClusterStore
from serve_app.documents.blobs import BlobStore


class StateStore(Protocol):
    """Small values by key, each replaced as a whole."""

    async def put(self, key: str, data: bytes) -> None:
        """Store a value in place of what was there."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Return a value, or None when there is none."""
        ...


class ClusterState:
    """Ray's own key-value store, which Serve's controller keeps its checkpoints in too.

    It lives as long as the cluster, through a restart of the head only with GCS fault tolerance.
    """

    def __init__(self) -> None:
        self._store = ClusterStore()

    async def put(self, key: str, data: bytes) -> None:
        """Store a value."""
        await asyncio.to_thread(self._store.put, key, data)

    async def get(self, key: str) -> bytes | None:
        """Return a value."""
        return await asyncio.to_thread(self._store.get, key)


class BlobState:
    """A folder or an object store, which outlives the cluster."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def put(self, key: str, data: bytes) -> None:
        """Store a value."""
        await self._blobs.put(f"rollouts/{key}.json", data)

    async def get(self, key: str) -> bytes | None:
        """Return a value."""
        try:
            return await self._blobs.get(f"rollouts/{key}.json")
        except KeyError:
            return None
