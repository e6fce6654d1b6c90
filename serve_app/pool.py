"""ReplicaPool: a Router's own view of the directory, its leases, and the choice of a replica without any RPC."""

from __future__ import annotations

import asyncio
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from serve_app.contracts import ReplicaEntry, ReplicaState
from serve_app.errors import DeadlineExceeded, RateLimited

VariantKey = tuple[str, str]  # (model, variant)
EJECT_S = 2.0  # a replica that refused a connection is left alone this long


@dataclass(slots=True)
class _Replica:
    entry: ReplicaEntry
    leases: int = 0
    others: int = 0  # requests that other Routers have open there, by the last report
    ejected_until_s: float = 0.0

    def refresh(self, entry: ReplicaEntry) -> None:
        self.entry = entry
        self.others = max(0, entry.load.open_requests - self.leases)


@dataclass(slots=True)
class Lease:
    """A request in flight on a replica. Release it exactly when the request's stream has ended."""

    replica_id: str
    variant: str
    url: str
    _release: Callable[[], None] = field(repr=False)
    _is_open: bool = True

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        if self._is_open:
            self._is_open = False
            self._release()


class ReplicaPool:
    """Replicas by variant. Single-threaded: every method runs on the Router's event loop."""

    def __init__(self, *, max_waiting: int = 1024, clock: Callable[[], float]) -> None:
        self.max_waiting = max_waiting
        self._clock = clock
        self._replicas: dict[str, _Replica] = {}
        self._by_variant: dict[VariantKey, list[_Replica]] = {}
        self._waiters: defaultdict[VariantKey, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._waiting = 0

    def update(self, entries: Iterable[ReplicaEntry], *, is_complete: bool) -> None:
        """Take the directory's news. An incomplete directory adds to what is known; it makes nothing forgotten."""
        fresh = {entry.replica_id: entry for entry in entries}
        kept = {k: r for k, r in self._replicas.items() if k in fresh or not is_complete}
        for replica_id, entry in fresh.items():
            kept.setdefault(replica_id, _Replica(entry)).refresh(entry)
        self._replicas = kept
        self._by_variant = {}
        for replica in kept.values():
            key = (replica.entry.model, replica.entry.variant)
            self._by_variant.setdefault(key, []).append(replica)
        for key in list(self._waiters):
            self._wake(key, everyone=True)

    def entries(self) -> tuple[ReplicaEntry, ...]:
        """Return what is known, in no particular order."""
        return tuple(replica.entry for replica in self._replicas.values())

    def has_ready(self, model: str, variant: str) -> bool:
        """Whether some replica of the variant takes new work."""
        return any(r.entry.state is ReplicaState.READY for r in self._by_variant.get((model, variant), ()))

    def waiting(self) -> int:
        """Requests held here because no replica may take them."""
        return self._waiting

    async def lease(
        self, key: VariantKey, *, affinity: str, max_leases: int, timeout_s: float, exclude: Collection[str] = ()
    ) -> Lease:
        """Return a lease on the least loaded replica; replicas equally loaded are ranked by the affinity key.

        Raises:
            RateLimited: ``max_waiting`` requests wait here already.
            DeadlineExceeded: no replica had a place within ``timeout_s``.
        """
        deadline_s = self._clock() + timeout_s
        while (replica := self._choose(key, affinity, max_leases=max_leases, exclude=exclude)) is None:
            await self._wait(key, deadline_s)
        replica.leases += 1
        entry = replica.entry
        return Lease(entry.replica_id, entry.variant, entry.url, lambda: self._release(replica, key))

    def eject(self, replica_id: str) -> None:
        """Leave a replica that cannot be reached alone for a moment; Serve's health checks decide its fate."""
        if (replica := self._replicas.get(replica_id)) is not None:
            replica.ejected_until_s = self._clock() + EJECT_S

    def drain(self, replica_id: str) -> None:
        """Stop using a replica that said it is draining, before the directory says so."""
        if (replica := self._replicas.get(replica_id)) is not None:
            replica.ejected_until_s = self._clock() + 5 * EJECT_S

    def _choose(
        self, key: VariantKey, affinity: str, *, max_leases: int, exclude: Collection[str]
    ) -> _Replica | None:
        now_s = self._clock()
        best: tuple[int, int] | None = None
        found: _Replica | None = None
        for replica in self._by_variant.get(key, ()):
            entry = replica.entry
            if entry.state is not ReplicaState.READY or replica.leases >= max_leases:
                continue
            if replica.ejected_until_s > now_s or entry.replica_id in exclude:
                continue
            rank = (replica.leases + replica.others, zlib.crc32(f"{affinity}|{entry.replica_id}".encode()))
            if best is None or rank < best:
                best, found = rank, replica
        return found

    async def _wait(self, key: VariantKey, deadline_s: float) -> None:
        if self._waiting >= self.max_waiting:
            raise RateLimited(
                f"model {key[0]!r} is busy and {self._waiting} requests wait already; try again later", retry_after_s=5
            )
        if (left_s := deadline_s - self._clock()) <= 0:
            raise DeadlineExceeded(f"no replica of model {key[0]!r} could take the request in time")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[key].append(waiter)
        self._waiting += 1
        try:
            # Ejections end without any event, so look again now and then.
            await asyncio.wait([waiter], timeout=min(left_s, EJECT_S / 2))
        finally:
            self._waiting -= 1
            if waiter in self._waiters[key]:
                self._waiters[key].remove(waiter)

    def _release(self, replica: _Replica, key: VariantKey) -> None:
        replica.leases -= 1
        self._wake(key, everyone=False)

    def _wake(self, key: VariantKey, *, everyone: bool) -> None:
        waiters = self._waiters.get(key)
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if not everyone:
                    return
