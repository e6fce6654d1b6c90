"""ReplicaPool: a Router's own view of the directory, its leases, and the choice of a replica without any RPC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import partial

from serve_app.config import OutlierEjectionConfig
from serve_app.contracts import ReplicaEntry
from serve_app.lease import Choose as Choose
from serve_app.lease import Lease as Lease
from serve_app.lease import Target as Target
from serve_app.lease import VariantKey as VariantKey
from serve_app.outliers import DRAINING
from serve_app.replica_set import BALANCE, EJECTION, Balance, Replica, ReplicaSet
from serve_app.ring import point_of
from serve_app.rollout.telemetry import Outcome
from serve_app.waiting_room import WaitingRoom, Wish

PRIORITY = 5  # of a request that says nothing else; 0 is the lowest, 9 the highest
DRAIN_S = 10.0  # a replica that drains is left alone this long; by then the directory says so


class ReplicaPool:
    """Replicas by variant. Single-threaded: every method runs on the Router's event loop."""

    def __init__(self, *, max_waiting: int = 1024, balance: Balance = BALANCE, clock: Callable[[], float]) -> None:
        self.room = WaitingRoom(max_waiting=max_waiting, pick=self._pick, places=self._places, clock=clock)
        self.balance = balance
        self.ejections: Counter[tuple[str, str, str]] = Counter()  # by model, variant and reason
        self._ejection = EJECTION
        self._clock = clock
        self._replicas: dict[str, Replica] = {}
        self._sets: dict[VariantKey, ReplicaSet] = {}

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
        self.room.serve_all()

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
        return self.room.waiting()

    def held(self) -> dict[VariantKey, int]:
        """Requests held here, by the variant that each waits for now."""
        return self.room.held()

    def try_lease(self, target: Target, *, prefix: str | bytes, exclude: Collection[str] = ()) -> Lease | None:
        """Return a lease as ``lease`` does, or None when the request would have to wait for it."""
        if self.room.has_any(target[:2]):
            return None  # those who wait come first
        return self._pick(target, Wish(point_of(prefix), exclude, PRIORITY))

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
            RateLimited: its place would come too late, as ``Shedding`` expects; or ``max_waiting`` requests wait here, none of
                them of a lower priority; or one of a higher came.
            DeadlineExceeded: no replica had a place within ``timeout_s``.
            Unavailable: there was no replica at all by then.
            Exception: what ``choose`` raises.
        """
        deadline_s = self._clock() + timeout_s
        target = choose()
        lease = self.try_lease(target, prefix=prefix, exclude=exclude)
        if lease is None and self.room.on_wait(target[:2]):
            lease = self.try_lease(target, prefix=prefix, exclude=exclude)
        if lease is not None:
            return lease
        return await self.room.wait(Wish(point_of(prefix), exclude, priority), choose, target=target, deadline_s=deadline_s)

    def limit_ejections(self, config: OutlierEjectionConfig) -> None:
        """Set when replicas that fail are left alone, from now on."""
        self._ejection = config
        for replicas in self._sets.values():
            replicas.ejection = config

    def has_other(self, model: str, variant: str, tried: Collection[str]) -> bool:
        """Whether a replica of the variant that is not one of these takes new work."""
        replicas = self._sets.get((model, variant))
        return replicas is not None and replicas.has_other(tried)

    def judge(self, lease: Lease, outcome: Outcome) -> None:
        """Learn what became of a lease's request. A replica that fails is left alone; Serve's health checks decide its fate."""
        replica = self._replicas.get(lease.replica_id)
        if replica is None or lease.is_lost or replica.is_old_news(lease.number, outcome):
            return
        if replica.home.judge(replica, outcome, lease.number):
            self.ejections[*_key(replica.entry), outcome.value] += 1

    def begin(self, lease: Lease) -> None:
        """Learn that the answer to a lease's request has begun."""
        if (replica := self._replicas.get(lease.replica_id)) is not None and not lease.is_lost:
            replica.home.begin(replica, lease.number)

    def drain(self, replica_id: str) -> None:
        """Stop using a replica that said it is draining, before the directory says so."""
        if (replica := self._replicas.get(replica_id)) is not None:
            self.ejections[*_key(replica.entry), DRAINING] += 1
            replica.home.leave(replica, self._clock() + DRAIN_S)

    def ejected(self) -> dict[str, str]:
        """Return why replicas are left alone now, by replica; those that are not are missing."""
        reasons = {name: replica.home.ejected(replica) for name, replica in self._replicas.items()}
        return {name: reason for name, reason in reasons.items() if reason}

    def ejected_by_variant(self) -> dict[VariantKey, int]:
        """Return how many replicas are left alone now for a failure."""
        failed = (name for name, reason in self.ejected().items() if reason != DRAINING)
        return Counter(_key(self._replicas[name].entry) for name in failed)

    def _join(self, entry: ReplicaEntry) -> None:
        key = _key(entry)
        if (replicas := self._sets.get(key)) is None:
            replicas = self._sets[key] = ReplicaSet(clock=self._clock, on_place=partial(self.room.reuse, key))
            replicas.ejection = self._ejection
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
            self.room.shedding.forget(key)
        del self._replicas[replica.entry.replica_id]
        replica.lose()

    def _places(self, key: VariantKey) -> int | None:
        """Return how many requests of ours are open on a variant's replicas, or None while none of them is ready."""
        replicas = self._sets.get(key)
        if replicas is None or not replicas.has_ready():
            return None
        return sum(replica.leases for replica in replicas.replicas.values())

    def _pick(self, target: Target, wish: Wish) -> Lease | None:
        replicas = self._sets.get(target[:2])
        if replicas is None:
            return None
        replicas.limit(target.max_leases)
        adapter = target.adapter
        replica = replicas.choose(wish.point, self.balance, wish.exclude, adapter=adapter)
        if replica is None:
            return None
        number = replicas.take(replica)
        entry = replica.entry
        has_adapter = adapter is None or adapter in entry.adapters
        lease = Lease(entry.replica_id, entry.variant, entry.url, has_adapter, partial(replica.release, number), number=number)
        lease.is_trial = number == replica.probe
        replica.open[number] = lease
        return lease


def _key(entry: ReplicaEntry) -> VariantKey:
    return entry.model, entry.variant
