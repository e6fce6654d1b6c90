"""ReplicaPool: a Router's own view of the directory, its leases, and the choice of a replica without any RPC."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from serve_app.contracts import ReplicaEntry, ReplicaState
from serve_app.errors import DeadlineExceeded, PlatformError, RateLimited, Unavailable

RETRY_AFTER_S = 5.0
EJECT_S = 2.0  # a replica that refused a connection is left alone this long
RECHOOSE_S = 1.0  # ejections end without any event, so those who wait look again this often


class Target(NamedTuple):
    """The variant that is to take a request, and how many one Router may have open on each of its replicas."""

    model: str
    variant: str
    max_leases: int


VariantKey = tuple[str, str]  # (model, variant)
Choose = Callable[[], Target]


@dataclass(slots=True)
class _Replica:
    entry: ReplicaEntry
    leases: int = 0
    others: int = 0  # requests that other Routers have open there, by the last report
    ejected_until_s: float = 0.0

    def refresh(self, entry: ReplicaEntry) -> None:
        """Take a report; one that says nothing new is old, and says nothing about the leases of now."""
        if entry is not self.entry and entry != self.entry:
            self.others = max(0, entry.load.open_requests - self.leases)
        self.entry = entry


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


@dataclass(eq=False, slots=True)
class _Waiter:
    target: Target
    affinity: str
    exclude: Collection[str]
    lease: asyncio.Future[Lease]


class ReplicaPool:
    """Replicas by variant. Single-threaded: every method runs on the Router's event loop."""

    def __init__(self, *, max_waiting: int = 1024, clock: Callable[[], float]) -> None:
        self.max_waiting = max_waiting
        self._clock = clock
        self._replicas: dict[str, _Replica] = {}
        self._by_variant: dict[VariantKey, list[_Replica]] = {}
        self._queues: dict[VariantKey, deque[_Waiter]] = {}
        self._waiting = 0

    def update(self, entries: Iterable[ReplicaEntry], *, is_complete: bool) -> None:
        """Take the directory's news. An incomplete directory adds to what is known; it makes nothing forgotten."""
        fresh = {entry.replica_id: entry for entry in entries}
        kept = {k: r for k, r in self._replicas.items() if k in fresh or not is_complete}
        for replica_id, entry in fresh.items():
            if replica_id in kept:
                kept[replica_id].refresh(entry)
            else:
                kept[replica_id] = _Replica(entry, others=entry.load.open_requests)
        self._replicas = kept
        self._by_variant = {}
        for replica in kept.values():
            key = (replica.entry.model, replica.entry.variant)
            self._by_variant.setdefault(key, []).append(replica)
        for key in list(self._queues):
            self._serve_queue(key)

    def entries(self) -> tuple[ReplicaEntry, ...]:
        """Return what is known, in no particular order."""
        return tuple(replica.entry for replica in self._replicas.values())

    def has_ready(self, model: str, variant: str) -> bool:
        """Whether the directory knows a replica of the variant that takes new work."""
        return any(r.entry.state is ReplicaState.READY for r in self._by_variant.get((model, variant), ()))

    def can_take(self, model: str, variant: str) -> bool:
        """Whether some ready replica of the variant is not left alone after a failure."""
        now_s = self._clock()
        replicas = self._by_variant.get((model, variant), ())
        return any(r.entry.state is ReplicaState.READY and r.ejected_until_s <= now_s for r in replicas)

    def waiting(self) -> int:
        """Requests held here because no replica may take them."""
        return self._waiting

    async def lease(self, choose: Choose, *, affinity: str, timeout_s: float, exclude: Collection[str] = ()) -> Lease:
        """Return a lease on the least loaded replica of the variant that ``choose`` names; first come, first served.

        Replicas equally loaded are ranked by the affinity key. Replicas in ``exclude`` are the last resort. While a
        request waits, ``choose`` is asked again now and then: its variant may have gone.

        Raises:
            RateLimited: ``max_waiting`` requests wait here already.
            DeadlineExceeded: no replica had a place within ``timeout_s``.
            Unavailable: there was no replica at all by then.
            Exception: what ``choose`` raises.
        """
        deadline_s = self._clock() + timeout_s
        target = choose()
        if not self._queues.get(target[:2]) and (replica := self._pick(target, affinity, exclude)) is not None:
            return self._take(replica)
        if self._waiting >= self.max_waiting:
            message = f"model {target.model!r} is busy and {self._waiting} requests wait already; try again later"
            raise RateLimited(message, retry_after_s=RETRY_AFTER_S)
        self._waiting += 1
        waiter = _Waiter(target, affinity, exclude, asyncio.get_running_loop().create_future())
        try:
            return await self._wait(waiter, choose, deadline_s)
        except BaseException:
            self._give_up(waiter)
            raise
        finally:
            self._waiting -= 1

    def eject(self, replica_id: str) -> None:
        """Leave a replica that cannot be reached alone for a moment; Serve's health checks decide its fate."""
        self._avoid(replica_id, EJECT_S)

    def drain(self, replica_id: str) -> None:
        """Stop using a replica that said it is draining, before the directory says so."""
        self._avoid(replica_id, 5 * EJECT_S)

    def _avoid(self, replica_id: str, seconds: float) -> None:
        if (replica := self._replicas.get(replica_id)) is not None:
            replica.ejected_until_s = max(replica.ejected_until_s, self._clock() + seconds)

    def _pick(self, target: Target, affinity: str, exclude: Collection[str]) -> _Replica | None:
        now_s = self._clock()
        best: tuple[bool, int, int] | None = None
        found: _Replica | None = None
        for replica in self._by_variant.get(target[:2], ()):
            entry = replica.entry
            if entry.state is not ReplicaState.READY or replica.leases >= target.max_leases:
                continue
            if replica.ejected_until_s > now_s:
                continue
            tie = zlib.crc32(f"{affinity}|{entry.replica_id}".encode("utf-8", "surrogatepass"))
            rank = (entry.replica_id in exclude, replica.leases + replica.others, tie)
            if best is None or rank < best:
                best, found = rank, replica
        return found

    def _take(self, replica: _Replica) -> Lease:
        replica.leases += 1
        entry = replica.entry
        return Lease(entry.replica_id, entry.variant, entry.url, lambda: self._release(replica))

    def _too_late(self, target: Target) -> PlatformError:
        if self.has_ready(target.model, target.variant):
            return DeadlineExceeded(f"no replica of model {target.model!r} had a place for the request in time")
        return Unavailable(f"no replica of model {target.model!r} is ready", retry_after_s=RETRY_AFTER_S)

    async def _wait(self, waiter: _Waiter, choose: Choose, deadline_s: float) -> Lease:
        self._queues.setdefault(waiter.target[:2], deque()).append(waiter)
        while True:
            self._serve_queue(waiter.target[:2])
            left_s = deadline_s - self._clock()
            if not waiter.lease.done() and left_s <= 0:
                raise self._too_late(waiter.target)
            await asyncio.wait([waiter.lease], timeout=max(0.0, min(left_s, RECHOOSE_S)))
            if waiter.lease.done():
                return waiter.lease.result()
            self._move(waiter, choose())

    def _move(self, waiter: _Waiter, target: Target) -> None:
        old, waiter.target = waiter.target, target
        if old[:2] != target[:2]:
            self._leave(waiter, old[:2])
            self._queues.setdefault(target[:2], deque()).append(waiter)

    def _give_up(self, waiter: _Waiter) -> None:
        self._leave(waiter, waiter.target[:2])
        # Cancelled between being handed a lease and taking it: the place is free again.
        if waiter.lease.done() and not waiter.lease.cancelled():
            waiter.lease.result().release()

    def _leave(self, waiter: _Waiter, key: VariantKey) -> None:
        queue = self._queues.get(key)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[key]
        self._serve_queue(key)

    def _release(self, replica: _Replica) -> None:
        replica.leases -= 1
        self._serve_queue((replica.entry.model, replica.entry.variant))

    def _serve_queue(self, key: VariantKey) -> None:
        """Hand free places to those who wait, in their order; nobody who comes later is served before them."""
        while queue := self._queues.get(key):
            first = queue[0]
            replica = self._pick(first.target, first.affinity, first.exclude)
            if replica is None:
                return
            queue.popleft()
            if not queue:
                del self._queues[key]
            first.lease.set_result(self._take(replica))
