"""Replica: one replica as a Router sees it, and the requests that are open there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serve_app.contracts import ReplicaEntry, ReplicaState
from serve_app.lease import Lease
from serve_app.outliers import Health
from serve_app.rollout.telemetry import FAILURES, Outcome

if TYPE_CHECKING:
    from serve_app.replica_set import ReplicaSet


@dataclass(eq=False, slots=True)
class Replica:
    """A replica and the requests that are open there."""

    home: ReplicaSet
    entry: ReplicaEntry
    seat: int  # in the index; another's once the directory has forgotten this one
    leases: int = 0
    others: int = 0  # requests that other Routers have open there, by the last report
    health: Health = field(default_factory=Health)
    open: dict[int, Lease] = field(default_factory=dict)  # by the number that ``ReplicaSet.take`` gave
    probe: int = 0  # number of the request that it is tried with; 0: none
    told_apart: int = 0  # number of its last ejection: what was sent before says nothing of it any more
    is_known: bool = False  # to the directory
    is_counted: bool = False  # ready and trusted: part of the mean load
    is_leaving: bool = False  # it said so itself
    point: int = 0  # of its name on the ring; known once an adapter is loaded there

    def release(self, number: int) -> None:
        """Give one lease back."""
        self.open.pop(number, None)
        self.home.give_back(self, number)

    @property
    def is_ready(self) -> bool:
        """Whether the directory says that it takes new work."""
        return self.entry.state is ReplicaState.READY

    def is_old_news(self, number: int, outcome: Outcome) -> bool:
        """Whether a failure is one of a request that was sent before an ejection, which says nothing new after it.

        Else a replica that forgot dozens of requests and is well again would be ejected for each few of them, every time for
        longer.
        """
        return outcome in FAILURES and 0 < number < self.told_apart

    def tell_apart(self, number: int) -> None:
        """Note an ejection: the requests that are open now are those that it may have forgotten."""
        self.told_apart = number
        for lease in self.open.values():
            lease.is_suspect = True

    def lose(self) -> None:
        """Tell the open requests that the directory has forgotten it; one that drains only ended before they did."""
        if self.entry.state is not ReplicaState.DRAINING and not self.is_leaving:
            for lease in list(self.open.values()):
                lease.lose()


def first_unreachable(replicas: Iterable[Replica]) -> Replica | None:
    """Return, of the ready ones that are left alone because they cannot be reached, the one whose time ends first; or None."""
    out = (r for r in replicas if r.is_ready and r.health.is_unreachable)
    return min(out, key=lambda r: r.health.until_s, default=None)
