"""Router: which replica a request goes to, and the requests that no replica may take yet."""

from __future__ import annotations

from collections import deque

from autoscaling.simulation.replica import Replica


class Router:
    """Knows the ready replicas by their number of open requests, so that finding the least loaded one is O(1).

    Among equally loaded replicas it takes the one whose load changed last.
    """

    __slots__ = ("_least", "_levels", "_max_leases", "held")

    def __init__(self, max_leases: int) -> None:
        self.held: deque[int] = deque()  # in order of arrival
        self._max_leases = max_leases
        self._levels: list[list[Replica]] = [[]]  # by open requests; grown as replicas fill up
        self._least = 0  # no replica is on a lower level

    def add(self, replica: Replica) -> None:
        """Let a replica take requests."""
        self._put(replica, replica.open)

    def remove(self, replica: Replica) -> None:
        """Give a replica no more requests."""
        self._pull(replica, replica.open)

    def pick(self) -> Replica | None:
        """Return the replica with the fewest open requests, none when every one has as many as it may have.

        The caller has it take a request before anything else is asked: it is put one level up here.
        """
        levels, most = self._levels, self._max_leases
        least = self._least
        while least < most and least < len(levels) and not levels[least]:
            least += 1
        self._least = least
        if least >= most or least >= len(levels):
            return None
        replica = levels[least].pop()
        self._put(replica, least + 1)
        return replica

    def has_finished(self, replica: Replica, count: int) -> None:
        """Note that ``count`` requests of a replica have finished; its ``open`` is without them already."""
        self._pull(replica, replica.open + count)
        self._put(replica, replica.open)

    def least_loaded(self, count: int) -> list[Replica]:
        """Return that many replicas, those with the fewest open requests; all when there are fewer."""
        chosen: list[Replica] = []
        for level in self._levels:
            chosen.extend(reversed(level))
            if len(chosen) >= count:
                break
        return chosen[:count]

    def _put(self, replica: Replica, level: int) -> None:
        levels = self._levels
        while len(levels) <= level:
            levels.append([])
        replica.place = len(levels[level])
        levels[level].append(replica)
        self._least = min(self._least, level)

    def _pull(self, replica: Replica, level: int) -> None:
        bucket = self._levels[level]
        last = bucket.pop()
        if last is not replica:  # the last one takes its place: no gap, and no search
            bucket[replica.place] = last
            last.place = replica.place
