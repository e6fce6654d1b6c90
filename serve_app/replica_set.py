"""ReplicaSet: the replicas of one variant as this Router sees them, and the choice between them.

Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016, https://arxiv.org/abs/1608.01350): a prefix
goes to the replica that its hash names, whose KV cache has it, and on along the ring while that one has more than its
fair share. Everything that a choice needs is kept up to date change by change, so none looks at every replica.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from heapq import heappop, heappush
from itertools import count

from serve_app.balance import BALANCE as BALANCE
from serve_app.balance import Balance as Balance
from serve_app.balance import draw
from serve_app.config import OutlierEjectionConfig
from serve_app.contracts import ReplicaEntry
from serve_app.holders import Holders
from serve_app.load_index import LoadIndex
from serve_app.outliers import Standing, Verdict, can_spare, judge
from serve_app.replica import Replica as Replica
from serve_app.replica import first_unreachable
from serve_app.ring import HashRing, point_of
from serve_app.rollout.telemetry import Outcome

KEEP_TOGETHER = 2  # requests that a replica may have, however idle the others are: a prefix stays where its cache is
MAX_ARCS = 16  # looked at along the ring before the least loaded is taken
EJECTION = OutlierEjectionConfig()


class ReplicaSet:
    """Ready replicas are on the ring; those that may take one more request are in the index."""

    def __init__(self, *, clock: Callable[[], float], on_place: Callable[[], None]) -> None:
        self.ejection = EJECTION
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
        self._outliers: set[Replica] = set()  # not trusted because of what they failed
        self._on_trial: set[Replica] = set()
        self._numbers = count(1)
        self._holders = Holders()
        self._ejected_s = 0.0  # when one was last, or was tried before its time was over

    def has_ready(self) -> bool:
        """Whether some replica takes new work."""
        return len(self._ring) > 0

    def can_take(self) -> bool:
        """Whether some ready replica is not left alone after a failure, or is to be tried again."""
        self._end_ejections()
        return self._counted > 0 or any(map(self._may_probe, self._on_trial))

    def has_other(self, tried: Collection[str]) -> bool:
        """Whether a replica that is not one of these may take a request, when it has a place."""
        self._end_ejections()
        fit = self._on_trial if not self._counted else self.replicas.values()
        return any(
            replica.entry.replica_id not in tried and (replica.is_counted or self._may_probe(replica)) for replica in fit
        )

    def add(self, entry: ReplicaEntry) -> Replica:
        """Take a replica in whose id is new here."""
        others = entry.load.open_requests
        replica = Replica(self, entry, self._index.claim(others + entry.load.waiting), others=others, is_known=True)
        self._by_seat[replica.seat : replica.seat + 1] = [replica]
        self.replicas[entry.replica_id] = replica
        if replica.is_ready:
            self._ring.add(entry.replica_id, replica.seat)
        self._holders.note(replica, (), entry.adapters)
        self._settle(replica)
        return replica

    def remove(self, replica: Replica) -> None:
        """Forget a replica; leases on it may still be given back."""
        replica.is_known = False
        if replica.is_ready:
            self._ring.remove(replica.entry.replica_id)
        del self.replicas[replica.entry.replica_id]
        self._outliers.discard(replica)
        self._on_trial.discard(replica)
        self._holders.note(replica, replica.entry.adapters, ())
        self._settle(replica)
        self._index.free(replica.seat)

    def refresh(self, replica: Replica, entry: ReplicaEntry) -> None:
        """Take a report that says something new; an old one would say nothing about the leases of now."""
        if entry.adapters != replica.entry.adapters:
            self._holders.note(replica, replica.entry.adapters, entry.adapters)
        was_ready, replica.entry = replica.is_ready, entry
        replica.others = max(0, entry.load.open_requests - replica.leases)
        self._shift(replica, replica.leases + replica.others + entry.load.waiting - self.load(replica))
        if was_ready != replica.is_ready:
            if was_ready:
                self._ring.remove(entry.replica_id)
            else:
                self._ring.add(entry.replica_id, replica.seat)
            self._settle(replica)

    def judge(self, replica: Replica, outcome: Outcome, number: int) -> bool:
        """Learn what became of a request; ``number`` is what ``take`` gave. Returns whether the replica is ejected now."""
        self._end_ejections()
        health, was_outlier = replica.health, replica in self._outliers
        is_probe = health.standing is Standing.ON_TRIAL and number == replica.probe
        verdict = judge(health, outcome, is_probe=is_probe, config=self.ejection)
        is_ejected = verdict is Verdict.EJECT or (verdict is Verdict.SUSPECT and self._can_spare(replica))
        if is_ejected:
            self._ejected_s = self._clock()
            health.eject(outcome.value, self.ejection, self._ejected_s)
            replica.tell_apart(next(self._numbers))
        elif verdict is Verdict.TRUST or (is_probe and verdict is Verdict.SUSPECT):
            health.trust(self._clock())
        if is_ejected or is_probe or was_outlier:
            self._follow(replica)
        return is_ejected

    def begin(self, replica: Replica, number: int) -> None:
        """Learn that a request's answer has begun: that ends a trial, though not the row of failures."""
        if replica.health.standing is Standing.ON_TRIAL and number == replica.probe:
            replica.health.trust(self._clock())
            self._follow(replica)

    def leave(self, replica: Replica, until_s: float) -> None:
        """Leave a replica alone until then that said that it is draining."""
        replica.is_leaving = True
        replica.health.leave(until_s)
        self._follow(replica)

    def ejected(self, replica: Replica) -> str:
        """Return why a replica is left alone; empty: it is not."""
        self._end_ejections()
        return replica.health.reason if replica.health.standing is Standing.EJECTED else ""

    def limit(self, max_leases: int) -> None:
        """Set how many requests this Router may have open on each replica."""
        if max_leases != self._max_leases:
            self._max_leases = max_leases
            for replica in self.replicas.values():
                self._settle(replica)

    def take(self, replica: Replica) -> int:
        """Count one more request of this Router, and return its number."""
        number = next(self._numbers)
        replica.leases += 1
        self._index.shift(replica.seat, 1)
        self._total += replica.is_counted
        if not replica.is_counted:
            replica.probe = number
            self._settle(replica)
        elif replica.leases >= self._max_leases:
            self._settle(replica)
        return number

    def give_back(self, replica: Replica, number: int = 0) -> None:
        """Count one request of this Router less."""
        replica.leases -= 1
        if number == replica.probe:
            replica.probe = 0
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
        if self._ejections or self._outliers:
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
            return self._by_seat[index.opened[draw(point + next(self._numbers)) % len(index.opened)]]
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
        fit = [r for r in self._holders.of(adapter) if is_open[r.seat] and loads[r.seat] < bound]
        if balance.choice == "prefix":
            return max(fit, key=lambda r: draw(point ^ r.point), default=None)
        return min(fit, key=lambda r: (loads[r.seat], draw(point ^ r.point)), default=None)

    def _shift(self, replica: Replica, by: int) -> None:
        self._index.shift(replica.seat, by)
        if replica.is_counted:
            self._total += by

    def _settle(self, replica: Replica) -> None:
        """Count a replica and keep it open as its state now says."""
        is_usable = replica.is_known and replica.is_ready
        is_counted = is_usable and replica.health.standing is Standing.TRUSTED
        if is_counted != replica.is_counted:
            replica.is_counted = is_counted
            self._counted += 1 if is_counted else -1
            self._total += self.load(replica) if is_counted else -self.load(replica)
        is_open = (is_counted or self._may_probe(replica)) and replica.leases < self._max_leases
        if is_open != self._index.is_open[replica.seat]:
            (self._index.open if is_open else self._index.close)(replica.seat)

    def _may_probe(self, replica: Replica) -> bool:
        is_usable = replica.is_known and replica.is_ready
        return is_usable and replica.health.standing is Standing.ON_TRIAL and not replica.probe

    def _can_spare(self, replica: Replica) -> bool:
        others = [r for r in self.replicas.values() if r.is_ready and r is not replica]
        outliers = sum(r.health.is_outlier for r in others)
        trusted = sum(r.is_counted for r in others)
        return can_spare(ready=len(others) + 1, outliers=outliers, trusted=trusted, config=self.ejection)

    def _follow(self, replica: Replica) -> None:
        """Note what a replica's health has become."""
        health = replica.health
        if health.standing is Standing.EJECTED:
            heappush(self._ejections, (health.until_s, next(self._numbers), replica))
        (self._outliers.add if health.is_outlier else self._outliers.discard)(replica)
        (self._on_trial.add if health.standing is Standing.ON_TRIAL else self._on_trial.discard)(replica)
        if health.standing is not Standing.ON_TRIAL:
            replica.probe = 0
        if replica.is_known:  # else its seat may be another's
            self._settle(replica)

    def _end_ejections(self) -> None:
        while self._ejections and self._ejections[0][0] <= self._clock():
            until_s, _, replica = heappop(self._ejections)
            if replica.health.until_s <= until_s:  # else it was ejected again
                replica.health.end_ejection(self._clock())
                self._follow(replica)
        if not self._counted:
            self._recall()

    def _recall(self) -> None:
        """Trust the outliers again where no other is left; where none can be reached, try one now and then before its time."""
        now_s = self._clock()
        for replica in [r for r in self._outliers if r.is_ready]:
            replica.health.trust(now_s)
            self._follow(replica)
        if not self._counted and not self._on_trial and now_s - self._ejected_s >= self.ejection.base_s:
            self._ejected_s = now_s
            if (first := first_unreachable(self.replicas.values())) is not None:
                first.health.end_ejection(now_s)
                self._follow(first)
