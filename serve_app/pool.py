"""ReplicaPool: a Router's own view of the directory, its leases, and the choice of a replica without any RPC."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from serve_app.contracts import ReplicaEntry
from serve_app.errors import DeadlineExceeded, PlatformError, RateLimited, Unavailable
from serve_app.replica_set import BALANCE, Balance, Replica, ReplicaSet
from serve_app.ring import point_of

PRIORITY = 5  # of a request that says nothing else; 0 is the lowest, 9 the highest
RETRY_AFTER_S = 5.0
EJECT_S = 2.0  # a replica that refused a connection is left alone this long
RECHOOSE_S = 1.0  # ejections end without any event, so those who wait look again this often


class Target(NamedTuple):
    """The variant that is to take a request, and how many one Router may have open on each of its replicas."""

    model: str
    variant: str
    max_leases: int
    adapter: str | None = None  # what the replica should have loaded, as ``AdapterTag.key``


VariantKey = tuple[str, str]  # (model, variant)
Choose = Callable[[], Target]


@dataclass(slots=True)
class Lease:
    """A request in flight on a replica. Release it exactly when the request's stream has ended."""

    replica_id: str
    variant: str
    url: str
    has_adapter: bool  # which the request needs, by the replica's last report; True where it needs none
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
    point: int  # where the request's prefix lies on the ring
    exclude: Collection[str]
    priority: int
    arrival: int
    lease: asyncio.Future[Lease]


class ReplicaPool:
    """Replicas by variant. Single-threaded: every method runs on the Router's event loop."""

    def __init__(self, *, max_waiting: int = 1024, balance: Balance = BALANCE, clock: Callable[[], float]) -> None:
        self.max_waiting = max_waiting
        self.balance = balance
        self.on_wait: Callable[[VariantKey], bool] = _has_no_more  # asked for places before a request waits; whether it gave
        self.ejections: Counter[VariantKey] = Counter()  # times that a replica was left alone
        self._clock = clock
        self._replicas: dict[str, Replica] = {}
        self._sets: dict[VariantKey, ReplicaSet] = {}
        self._queues: dict[VariantKey, deque[_Waiter]] = {}
        self._waiting = 0
        self._arrivals = 0

    def update(self, entries: Iterable[ReplicaEntry], *, is_complete: bool) -> None:
        """Take the directory's news. An incomplete directory adds to what is known; it makes nothing forgotten."""
        fresh = {entry.replica_id: entry for entry in entries}
        replicas = self._replicas
        for replica_id, entry in fresh.items():
            replica = replicas.get(replica_id)
            if replica is None:
                self._join(entry)
            elif entry is not replica.entry and entry != replica.entry:
                self._refresh(replica, entry)
        if is_complete and len(fresh) < len(replicas):
            for replica_id in replicas.keys() - fresh.keys():
                self._forget(replicas[replica_id])
        for key in list(self._queues):
            self._serve_queue(key)

    def entries(self) -> tuple[ReplicaEntry, ...]:
        """Return what is known, in no particular order."""
        return tuple(replica.entry for replica in self._replicas.values())

    def has_ready(self, model: str, variant: str) -> bool:
        """Whether the directory knows a replica of the variant that takes new work."""
        replicas = self._sets.get((model, variant))
        return replicas is not None and replicas.has_ready()

    def can_take(self, model: str, variant: str) -> bool:
        """Whether some ready replica of the variant is not left alone after a failure."""
        replicas = self._sets.get((model, variant))
        return replicas is not None and replicas.can_take()

    def waiting(self) -> int:
        """Requests held here because no replica may take them."""
        return self._waiting

    def held(self) -> dict[VariantKey, int]:
        """Requests held here, by the variant that each waits for now."""
        counts = {key: sum(not waiter.lease.done() for waiter in queue) for key, queue in self._queues.items()}
        return {key: count for key, count in counts.items() if count}

    def try_lease(self, target: Target, *, prefix: str | bytes, exclude: Collection[str] = ()) -> Lease | None:
        """Return a lease as ``lease`` does, or None when the request would have to wait for it."""
        if self._queues and target[:2] in self._queues:
            return None  # those who wait come first
        return self._pick(target, point_of(prefix), exclude)

    async def lease(
        self,
        choose: Choose,
        *,
        prefix: str | bytes,
        timeout_s: float,
        exclude: Collection[str] = (),
        priority: int = PRIORITY,
    ) -> Lease:
        """Return a lease on a replica of the variant that ``choose`` names: higher priorities first, then who came first.

        The prefix leads to the replica whose KV cache has it, while that one has no more than its share of the load
        (``balance``); of an adapter's requests, among the replicas that have it loaded. Replicas in ``exclude`` are the
        last resort. While a request waits, ``choose`` is asked again now
        and then: its variant may have gone.

        Raises:
            RateLimited: ``max_waiting`` requests wait here, none of them of a lower priority; or one of a higher came.
            DeadlineExceeded: no replica had a place within ``timeout_s``.
            Unavailable: there was no replica at all by then.
            Exception: what ``choose`` raises.
        """
        deadline_s = self._clock() + timeout_s
        target = choose()
        lease = self.try_lease(target, prefix=prefix, exclude=exclude)
        if lease is None and self.on_wait(target[:2]):
            lease = self.try_lease(target, prefix=prefix, exclude=exclude)
        if lease is not None:
            return lease
        if self._waiting >= self.max_waiting and not self._displace(priority):
            raise self._busy(target)
        self._waiting += 1
        self._arrivals += 1
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(target, point_of(prefix), exclude, priority, self._arrivals, future)
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
            self.ejections[_key(replica.entry)] += 1
            self._sets[_key(replica.entry)].eject(replica, self._clock() + seconds)

    def _join(self, entry: ReplicaEntry) -> None:
        key = _key(entry)
        if (replicas := self._sets.get(key)) is None:
            replicas = self._sets[key] = ReplicaSet(clock=self._clock, on_place=partial(self._serve_queue, key))
        self._replicas[entry.replica_id] = replicas.add(entry)

    def _refresh(self, replica: Replica, entry: ReplicaEntry) -> None:
        if _key(entry) == _key(replica.entry):
            self._sets[_key(entry)].refresh(replica, entry)
        else:  # another replica under the same id
            self._forget(replica)
            self._join(entry)

    def _forget(self, replica: Replica) -> None:
        key = _key(replica.entry)
        replicas = self._sets[key]
        replicas.remove(replica)
        if not replicas.replicas:
            del self._sets[key]
        del self._replicas[replica.entry.replica_id]

    def _pick(self, target: Target, point: int, exclude: Collection[str]) -> Lease | None:
        replicas = self._sets.get(target[:2])
        if replicas is None:
            return None
        replicas.limit(target.max_leases)
        adapter = target.adapter
        replica = replicas.choose(point, self.balance, exclude, adapter=adapter)
        if replica is None:
            return None
        replicas.take(replica)
        entry = replica.entry
        has_adapter = adapter is None or adapter in entry.adapters
        return Lease(entry.replica_id, entry.variant, entry.url, has_adapter, replica.release)

    def _too_late(self, target: Target) -> PlatformError:
        if self.has_ready(target.model, target.variant):
            return DeadlineExceeded(f"no replica of model {target.model!r} had a place for the request in time")
        return Unavailable(f"no replica of model {target.model!r} is ready", retry_after_s=RETRY_AFTER_S)

    async def _wait(self, waiter: _Waiter, choose: Choose, deadline_s: float) -> Lease:
        self._line_up(waiter)
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
            self._line_up(waiter)
            self.on_wait(target[:2])

    def _line_up(self, waiter: _Waiter) -> None:
        """Put a waiter behind those of its priority; as a rule that is the end."""
        queue = self._queues.setdefault(waiter.target[:2], deque())
        place = len(queue)
        while place and queue[place - 1].priority < waiter.priority:
            place -= 1
        queue.insert(place, waiter)

    def _displace(self, priority: int) -> bool:
        """Refuse the youngest waiter of the lowest priority, if that is below ``priority``; whether there was one."""
        lasts = (queue[-1] for queue in self._queues.values())
        last = min(lasts, key=lambda waiter: (waiter.priority, -waiter.arrival), default=None)
        if last is None or last.priority >= priority:
            return False
        last.lease.set_exception(self._busy(last.target))
        self._leave(last, last.target[:2])
        return True

    def _busy(self, target: Target) -> RateLimited:
        message = f"model {target.model!r} is busy and {self._waiting} requests wait already; try again later"
        return RateLimited(message, retry_after_s=RETRY_AFTER_S)

    def _give_up(self, waiter: _Waiter) -> None:
        self._leave(waiter, waiter.target[:2])
        # Cancelled between being handed a lease and taking it: the place is free again.
        if waiter.lease.done() and not waiter.lease.cancelled() and waiter.lease.exception() is None:
            waiter.lease.result().release()

    def _leave(self, waiter: _Waiter, key: VariantKey) -> None:
        queue = self._queues.get(key)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[key]
        self._serve_queue(key)

    def _serve_queue(self, key: VariantKey) -> None:
        """Hand free places to those who wait, in their order; nobody who comes later is served before them."""
        while queue := self._queues.get(key):
            first = queue[0]
            lease = self._pick(first.target, first.point, first.exclude)
            if lease is None:
                return
            queue.popleft()
            if not queue:
                del self._queues[key]
            first.lease.set_result(lease)


def _has_no_more(_: VariantKey) -> bool:
    return False


def _key(entry: ReplicaEntry) -> VariantKey:
    return entry.model, entry.variant
