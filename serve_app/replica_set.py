"""ReplicaSet: the replicas of one variant as this Router sees them, and the choice between them.

Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016, https://arxiv.org/abs/1608.01350): a prefix
goes to the replica that its hash names, whose KV cache has it, and on along the ring while that one has more than its
fair share. Everything that a choice needs is kept up to date change by change, so none looks at every replica.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from serve_app.config import ReplicaChoice
from serve_app.contracts import ReplicaEntry, ReplicaState
from serve_app.load_index import LoadIndex
from serve_app.ring import HashRing, point_of

KEEP_TOGETHER = 2  # requests that a replica may have, however idle the others are: a prefix stays where its cache is
MAX_ARCS = 16  # looked at along the ring before the least loaded is taken
_WORD = 0xFFFFFFFFFFFFFFFF


class Balance(NamedTuple):
    """How a replica is chosen, and how far over the mean load a prefix may lead."""

    choice: ReplicaChoice = "prefix"
    factor: float = 1.25


BALANCE = Balance()


@dataclass(eq=False, slots=True)
class Replica:
    """A replica and the requests that are open there."""

    home: ReplicaSet
    entry: ReplicaEntry
    seat: int  # in the index; another's once the directory has forgotten this one
    leases: int = 0
    others: int = 0  # requests that other Routers have open there, by the last report
    ejected_until_s: float = 0.0
    is_known: bool = False  # to the directory
    is_counted: bool = False  # ready and not ejected: part of the mean load
    point: int = 0  # of its name on the ring; known once an adapter is loaded there

    def release(self) -> None:
        """Give one lease back."""
        self.home.give_back(self)

    @property
    def is_ready(self) -> bool:
        """Whether the directory says that it takes new work."""
        return self.entry.state is ReplicaState.READY


class ReplicaSet:
    """Ready replicas are on the ring; those that may take one more request are in the index."""

    def __init__(self, *, clock: Callable[[], float], on_place: Callable[[], None]) -> None:
        self.replicas: dict[str, Replica] = {}
        self._max_leases = 0  # nobody may have any until the first request names a limit
        self._clock = clock
        self._on_place = on_place  # called when a request has ended
        self._ring = HashRing()
        self._index = LoadIndex()
        self._by_seat: list[Replica] = []
        self._total = 0  # load of the counted
        self._counted = 0
        self._ejections: list[tuple[float, int, Replica]] = []
        self._numbers = count()
        self._holders: dict[str, set[Replica]] = {}  # by the adapter that they have loaded

    def has_ready(self) -> bool:
        """Whether some replica takes new work."""
        return len(self._ring) > 0

    def can_take(self) -> bool:
        """Whether some ready replica is not left alone after a failure."""
        self._end_ejections()
        return self._counted > 0

    def add(self, entry: ReplicaEntry) -> Replica:
        """Take a replica in whose id is new here."""
        others = entry.load.open_requests
        replica = Replica(self, entry, self._index.claim(others + entry.load.waiting), others=others, is_known=True)
        self._by_seat[replica.seat : replica.seat + 1] = [replica]
        self.replicas[entry.replica_id] = replica
        if replica.is_ready:
            self._ring.add(entry.replica_id, replica.seat)
        self._note_adapters(replica, (), entry.adapters)
        self._settle(replica)
        return replica

    def remove(self, replica: Replica) -> None:
        """Forget a replica; leases on it may still be given back."""
        replica.is_known = False
        if replica.is_ready:
            self._ring.remove(replica.entry.replica_id)
        del self.replicas[replica.entry.replica_id]
        self._note_adapters(replica, replica.entry.adapters, ())
        self._settle(replica)
        self._index.free(replica.seat)

    def refresh(self, replica: Replica, entry: ReplicaEntry) -> None:
        """Take a report that says something new; an old one would say nothing about the leases of now."""
        if entry.adapters != replica.entry.adapters:
            self._note_adapters(replica, replica.entry.adapters, entry.adapters)
        was_ready, replica.entry = replica.is_ready, entry
        replica.others = max(0, entry.load.open_requests - replica.leases)
        self._shift(replica, replica.leases + replica.others + entry.load.waiting - self.load(replica))
        if was_ready != replica.is_ready:
            if was_ready:
                self._ring.remove(entry.replica_id)
            else:
                self._ring.add(entry.replica_id, replica.seat)
            self._settle(replica)

    def eject(self, replica: Replica, until_s: float) -> None:
        """Leave a replica alone until then."""
        if until_s > replica.ejected_until_s:
            replica.ejected_until_s = until_s
            heappush(self._ejections, (until_s, next(self._numbers), replica))
            self._settle(replica)

    def limit(self, max_leases: int) -> None:
        """Set how many requests this Router may have open on each replica."""
        if max_leases != self._max_leases:
            self._max_leases = max_leases
            for replica in self.replicas.values():
                self._settle(replica)

    def take(self, replica: Replica) -> None:
        """Count one more request of this Router."""
        replica.leases += 1
        self._index.shift(replica.seat, 1)
        self._total += replica.is_counted
        if replica.leases >= self._max_leases:
            self._settle(replica)

    def give_back(self, replica: Replica) -> None:
        """Count one request of this Router less."""
        replica.leases -= 1
        if not replica.is_known:
            return
        self._index.shift(replica.seat, -1)
        self._total -= replica.is_counted
        if not self._index.is_open[replica.seat]:
            self._settle(replica)
        self._on_place()

    def choose(
        self, point: int, balance: Balance, exclude: Collection[str] = (), *, adapter: str | None = None
    ) -> Replica | None:
        """Return the replica for a prefix that lies at a point of the ring; the excluded are the last resort.

        A request of an adapter goes to one that has it loaded, and on along the ring from the adapter's own point where
        each of those has more than its fair share: so the same few replicas take the same adapter.
        """
        if self._ejections:
            self._end_ejections()
        if not exclude:
            return self._choose(point, balance, adapter)
        aside = [r for name in dict.fromkeys(exclude) if (r := self.replicas.get(name)) is not None]
        seats = [replica.seat for replica in aside if self._index.is_open[replica.seat]]
        for seat in seats:
            self._index.close(seat)
        found = self._choose(point, balance, adapter)
        for seat in seats:
            self._index.open(seat)
        return found or self._choose(point, balance, adapter)

    def load(self, replica: Replica) -> int:
        """Return the requests open on a known replica, and once more those that wait in its engine."""
        return self._index.loads[replica.seat]

    def bound(self, factor: float) -> float:
        """Return the load below which a replica takes one more request for its prefix's sake.

        Loads are whole numbers, so what it has then is no more than the bound rounded up.
        """
        return max(KEEP_TOGETHER, factor * (self._total + 1) / max(1, self._counted))

    def _choose(self, point: int, balance: Balance, adapter: str | None = None) -> Replica | None:
        index = self._index
        if not index.opened:
            return None
        if adapter is not None:
            if (holder := self._choose_holder(point, balance, adapter)) is not None:
                return holder
            point, balance = point_of(adapter), Balance("prefix", balance.factor)
        choice, factor = balance
        if choice == "random":
            return self._by_seat[index.opened[_draw(point + next(self._numbers)) % len(index.opened)]]
        if choice == "prefix":
            bound = self.bound(factor)
            loads, is_open = index.loads, index.is_open
            start, owners = self._ring.seek(point), self._ring.owners
            for place in range(start, start + min(MAX_ARCS, len(owners))):
                seat = owners[place]
                if loads[seat] < bound and is_open[seat]:
                    return self._by_seat[seat]
        return self._by_seat[index.least(point)]

    def _choose_holder(self, point: int, balance: Balance, adapter: str) -> Replica | None:
        """Return a replica that has the adapter and no more than its fair share: the prefix's own, or the least loaded.

        There are few, and not those of some stretch of the ring: the highest of their numbers for this prefix wins
        (rendezvous hashing), in every Router alike.
        """
        bound, index = self.bound(balance.factor), self._index
        loads, is_open = index.loads, index.is_open
        fit = [r for r in self._holders.get(adapter, ()) if is_open[r.seat] and loads[r.seat] < bound]
        if balance.choice == "prefix":
            return max(fit, key=lambda r: _draw(point ^ r.point), default=None)
        return min(fit, key=lambda r: (loads[r.seat], _draw(point ^ r.point)), default=None)

    def _note_adapters(self, replica: Replica, before: Collection[str], now: Collection[str]) -> None:
        for adapter in before:
            holders = self._holders[adapter]
            holders.discard(replica)
            if not holders:
                del self._holders[adapter]
        if now:
            replica.point = point_of(replica.entry.replica_id)
        for adapter in now:
            self._holders.setdefault(adapter, set()).add(replica)

    def _shift(self, replica: Replica, by: int) -> None:
        self._index.shift(replica.seat, by)
        if replica.is_counted:
            self._total += by

    def _settle(self, replica: Replica) -> None:
        """Count a replica and keep it open as its state now says."""
        until_s = replica.ejected_until_s
        is_counted = replica.is_known and replica.is_ready and not (until_s and until_s > self._clock())
        if is_counted != replica.is_counted:
            replica.is_counted = is_counted
            self._counted += 1 if is_counted else -1
            self._total += self.load(replica) if is_counted else -self.load(replica)
        is_open = is_counted and replica.leases < self._max_leases
        if is_open != self._index.is_open[replica.seat]:
            (self._index.open if is_open else self._index.close)(replica.seat)

    def _end_ejections(self) -> None:
        while self._ejections and self._ejections[0][0] <= self._clock():
            replica = heappop(self._ejections)[2]
            if replica.is_known:  # else its seat may be another's
                self._settle(replica)


def _draw(number: int) -> int:
    """Return a number that looks random: SplitMix64's finalizer, one-to-one and without a state."""
    number = number * 0x9E3779B97F4A7C15 & _WORD
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _WORD
    return number ^ number >> 31
