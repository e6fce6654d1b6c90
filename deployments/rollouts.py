"""Rollouts: one replica that keeps the routing document and the directory, and tells Routers by long poll."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable

from serve_app.contracts import DirectorySnapshot, ReplicaEntry
from serve_app.rollout.directory import Directory
from serve_app.rollout.document import RoutingDocument
from serve_app.view import RoutingView

logger = logging.getLogger("ray.serve")

TTL_S = 5.0
POLL_S = 20.0  # a watch without news returns after this long, so that dead watchers do not pile up
COALESCE_S = 0.1  # news closer together than this reach Routers as one


class Rollouts:
    """The control plane's memory. It carries no traffic: when it is away, Routers keep what they saw last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._directory = Directory(ttl_s=TTL_S)
        self._routing = RoutingDocument().model_dump_json()
        self._epoch = uuid.uuid4().hex
        self._started_s = clock()
        self._revision = 0
        self._news = asyncio.Event()

    async def reconfigure(self, user_config: dict[str, object]) -> None:
        """Take a new routing document, in place. Raises ValueError and keeps the old one when it is bad."""
        document = RoutingDocument.model_validate(user_config["routing"])
        RoutingView(document)  # what Routers will make of it: a weight sum or a prompt may be wrong still
        self._routing = document.model_dump_json()
        self._revision += 1
        self._tell()

    async def heartbeat(self, entry: ReplicaEntry, seq: int) -> None:
        """Hear from a replica; the first heartbeat registers it."""
        self._changed(lambda: self._directory.heartbeat(entry, seq=seq, now_s=self._clock()))

    async def drain(self, replica_id: str) -> None:
        """Stop new work for a replica whose streams are still open."""
        self._changed(lambda: self._directory.drain(replica_id))

    async def deregister(self, replica_id: str) -> None:
        """Forget a replica for good."""
        self._changed(lambda: self._directory.remove(replica_id, now_s=self._clock()))

    async def watch(self, epoch: str, version: int) -> DirectorySnapshot:
        """Return the first snapshot that differs from the caller's, or the same one after ``POLL_S`` seconds."""
        deadline_s = self._clock() + POLL_S
        while (now_s := self._clock()) < deadline_s:
            self._expire(now_s)
            if (epoch, version) != (self._epoch, self._version()):
                break
            news = self._news
            try:
                # Wake at least once per time-to-live: an expiry is news that nobody announces.
                await asyncio.wait_for(news.wait(), timeout=min(TTL_S / 4, deadline_s - now_s))
                await asyncio.sleep(COALESCE_S)
            except TimeoutError:
                continue
        return self._snapshot()

    async def status(self) -> DirectorySnapshot:
        """Return the snapshot as it is."""
        self._directory.expire(now_s=self._clock())
        return self._snapshot()

    def _expire(self, now_s: float) -> None:
        self._changed(lambda: self._directory.expire(now_s=now_s))

    def _is_complete(self) -> bool:
        return self._clock() - self._started_s > TTL_S

    def _version(self) -> int:
        # Becoming complete is news as well: only then may Routers forget replicas that the restart made unknown.
        return self._directory.version + self._revision + int(self._is_complete())

    def _snapshot(self) -> DirectorySnapshot:
        return DirectorySnapshot(
            epoch=self._epoch,
            version=self._version(),
            replicas=self._directory.entries(),
            routing=self._routing,
            is_complete=self._is_complete(),
        )

    def _changed(self, change: Callable[[], None]) -> None:
        before = self._directory.version
        change()
        if self._directory.version != before:
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
