"""What one choice of a replica costs a Router, by the number of endpoints.

    python -m benchmarks.decision                     # microseconds per decision and the ratio of 2,000 endpoints to 2
    python -m benchmarks.decision --choice random     # another `router.replica_choice`
    python -m benchmarks.decision --rounds 200        # a quieter median on a busy machine

A decision is `ReplicaPool.try_lease` for a prefix that was not seen before, plus the release of the oldest lease, while
as many requests are open at every size. The sizes take turns, round by round, and each number is the median
over the rounds, so that another load on the machine falls on all of them alike. Time is the thread's CPU time. `update`
is a directory snapshot with as many entries, each a new object, as they come from the wire: one with no news, and one in
which every load changed; `join` is the first decision after one more endpoint has come.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import truediv
from statistics import median
from typing import cast, get_args

from serve_app.config import ReplicaChoice
from serve_app.contracts import EngineLoad, ReplicaEntry, ReplicaState
from serve_app.pool import Lease, ReplicaPool, Target
from serve_app.replica_set import Balance

SIZES = (2, 8, 32, 200, 2000)
OPEN = 2000  # requests, at every size
DECISIONS = 500  # per round and size
TARGET = Target("chat", "stable", 10 * OPEN)


@dataclass(frozen=True)
class Row:
    """Medians for one number of endpoints."""

    endpoints: int
    decision_us: float
    ratio: float  # to the first size, round by round
    quiet_update_us: float
    busy_update_us: float
    join_us: float


def directory(endpoints: int, *, waiting: int = 0) -> list[ReplicaEntry]:
    """Return a snapshot's entries, none of them shared with another snapshot."""
    load = EngineLoad(waiting=waiting)
    return [
        ReplicaEntry(
            f"replica-{i:05d}-{i * 7919:x}", "chat", "stable", f"http://10.0.0.1:{i}", ReplicaState.READY, replace(load)
        )
        for i in range(endpoints)
    ]


class Router:
    """A pool, and the leases that its open requests hold."""

    def __init__(self, endpoints: int, choice: ReplicaChoice) -> None:
        self.pool = ReplicaPool(balance=Balance(choice), clock=time.monotonic)
        self.pool.update(directory(endpoints), is_complete=True)
        self._held: deque[Lease] = deque()
        for i in range(OPEN):
            self._lease(f"held {i}")

    def decision_us(self, prefixes: Sequence[str]) -> float:
        """Return the microseconds that one decision and a release took."""
        start_s = time.thread_time()
        for prefix in prefixes:
            self._lease(prefix)
            self._held.popleft().release()
        return (time.thread_time() - start_s) / len(prefixes) * 1e6

    def _lease(self, prefix: str) -> None:
        lease = self.pool.try_lease(TARGET, prefix=prefix)
        assert lease is not None  # noqa: S101 - max_leases is far away
        self._held.append(lease)


def update_us(pool: ReplicaPool, entries: list[ReplicaEntry]) -> float:
    """Return the microseconds that a snapshot took."""
    start_s = time.thread_time()
    pool.update(entries, is_complete=True)
    return (time.thread_time() - start_s) * 1e6


def measure(choice: ReplicaChoice, rounds: int, *, sizes: Sequence[int] = SIZES, decisions: int = DECISIONS) -> list[Row]:
    """Return one row per size."""
    routers = {n: Router(n, choice) for n in sizes}
    gc.collect()
    gc.freeze()  # as in a server: what lives long is not looked at again and again
    taken: dict[int, list[float]] = {n: [] for n in sizes}
    for number in range(rounds):
        prefixes = [f"prefix {number}/{i}" for i in range(decisions)]
        for n, router in routers.items():
            taken[n].append(router.decision_us(prefixes))
    ratios = {n: median(map(truediv, taken[n], taken[sizes[0]])) for n in sizes}
    return [Row(n, median(taken[n]), ratios[n], *_updates(routers[n].pool, n)) for n in sizes]


def _updates(pool: ReplicaPool, endpoints: int, rounds: int = 9) -> tuple[float, float, float]:
    def timed(waiting: Callable[[int], int]) -> float:
        return median(update_us(pool, directory(endpoints, waiting=waiting(i))) for i in range(rounds))

    pool.update(directory(endpoints), is_complete=True)
    return (
        timed(lambda _: 0),
        timed(lambda i: i + 1),
        median(join_us(pool, directory(endpoints + i + 1)) for i in range(rounds)),
    )


def join_us(pool: ReplicaPool, entries: list[ReplicaEntry]) -> float:
    """Return the microseconds of the first decision after a snapshot with a new endpoint."""
    pool.update(entries, is_complete=True)
    start_s = time.thread_time()
    pool.try_lease(TARGET, prefix="first")
    return (time.thread_time() - start_s) * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decision", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--choice", choices=get_args(ReplicaChoice), default="prefix")
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    rows = measure(cast("ReplicaChoice", args.choice), args.rounds)
    out = sys.stdout.write
    out(f"{'endpoints':>9} {'decision':>9} {'update, no news':>16} {'update, all new':>16} {'join':>7}  (microseconds)\n")
    for row in rows:
        out(f"{row.endpoints:>9} {row.decision_us:>9.2f} {row.quiet_update_us:>16.0f} {row.busy_update_us:>16.0f} ")
        out(f"{row.join_us:>7.0f}\n")
    first, last = rows[0], rows[-1]
    out(f"{last.endpoints} endpoints cost {last.ratio:.3f} times as much as {first.endpoints} (median of the rounds)\n")


if __name__ == "__main__":
    main()
