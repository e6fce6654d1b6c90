"""WaitingRoom: the requests that wait in a Router for a place on a replica, in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from serve_app.errors import DeadlineExceeded, PlatformError, RateLimited, Unavailable
from serve_app.lease import Choose, Lease, Target, VariantKey
from serve_app.shedding import SLACK, Reason, Shedding, Standing

RETRY_AFTER_S = 5.0
RECHOOSE_S = 1.0  # ejections end without any event, so those who wait look again this often


class Wish(NamedTuple):
    """Which place a request would like, and before whom it is served."""

    point: int  # where its prefix lies on the ring
    exclude: Collection[str]
    priority: int


Pick = Callable[[Target, Wish], Lease | None]


@dataclass(eq=False, slots=True)
class _Waiter:
    target: Target
    wish: Wish
    arrival: int
    lease: asyncio.Future[Lease] = field(repr=False)


class WaitingRoom:
    """Queues by variant. Single-threaded: every method runs on the Router's event loop.

    ``pick`` takes a place for a request, or returns None; ``places`` counts those that are taken on a variant's ready
    replicas, and is None where it has none. ``shedding`` says who need not wait, since a place would come too late.
    """

    def __init__(
        self, *, max_waiting: int, pick: Pick, places: Callable[[VariantKey], int | None], clock: Callable[[], float]
    ) -> None:
        self.max_waiting = max_waiting
        self.on_wait: Callable[[VariantKey], bool] = _has_no_more  # asked for places before a request waits; whether it gave
        self._pick = pick
        self.shedding = Shedding(clock=clock)
        self._places = places
        self._clock = clock
        self._queues: dict[VariantKey, deque[_Waiter]] = {}
        self._waiting = 0
        self._arrivals = 0

    def waiting(self) -> int:
        """Requests that wait."""
        return self._waiting

    def held(self) -> dict[VariantKey, int]:
        """Requests that wait, by the variant that each waits for now."""
        counts = {key: sum(not waiter.lease.done() for waiter in queue) for key, queue in self._queues.items()}
        return {key: count for key, count in counts.items() if count}

    def has_any(self, key: VariantKey) -> bool:
        """Whether some request waits for the variant."""
        return bool(self._queues) and key in self._queues

    async def wait(self, wish: Wish, choose: Choose, *, target: Target, deadline_s: float) -> Lease:
        """Return a lease, as ``ReplicaPool.lease`` does, once it is the request's turn.

        Raises:
            RateLimited, DeadlineExceeded, Unavailable, Exception: as ``ReplicaPool.lease`` says.
        """
        queue = self._queues.get(target[:2], ())
        self._judge(target, wish, _place_of(wish, queue), left_s=deadline_s - self._clock())
        if self._waiting >= self.max_waiting and not self._displace(wish.priority):
            raise self._busy(target, wish, Reason.QUEUE_FULL)
        self._waiting += 1
        self._arrivals += 1
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(target, wish, self._arrivals, future)
        try:
            return await self._wait(waiter, choose, deadline_s)
        except BaseException:
            self._give_up(waiter)
            raise
        finally:
            self._waiting -= 1

    def serve(self, key: VariantKey) -> int:
        """Hand free places to those who wait, in their order, and return how many got one.

        Nobody who comes later is served before them.
        """
        served = 0
        while queue := self._queues.get(key):
            first = queue[0]
            lease = self._pick(first.target, first.wish)
            if lease is None:
                break
            queue.popleft()
            self._close_if_empty(key)
            first.lease.set_result(lease)
            served += 1
        return served

    def reuse(self, key: VariantKey) -> None:
        """Hand a place that was given back to who waits for it: these say how fast places come free."""
        for _ in range(self.serve(key)):
            self.shedding.pace(key).hand_on()

    def serve_all(self) -> None:
        """Hand free places to those who wait, whatever they wait for."""
        for key in list(self._queues):
            self.serve(key)

    def expected_waits_s(self, priority: int) -> dict[VariantKey, float]:
        """Return how long one that comes now with this priority is expected to wait, by variant, where that is known."""
        waits = {}
        for key, queue in self._queues.items():
            ahead = _place_of(Wish(0, (), priority), queue)
            waits[key] = self.shedding.expected_s(Standing(key, priority, ahead, self._places(key)))
        return {key: wait_s for key, wait_s in waits.items() if wait_s is not None}

    def _too_late(self, target: Target) -> PlatformError:
        if self._places(target[:2]) is not None:
            return DeadlineExceeded(f"no replica of model {target.model!r} had a place for the request in time")
        return Unavailable(f"no replica of model {target.model!r} is ready", retry_after_s=RETRY_AFTER_S)

    async def _wait(self, waiter: _Waiter, choose: Choose, deadline_s: float) -> Lease:
        self._line_up(waiter)
        while True:
            self.serve(waiter.target[:2])
            left_s = deadline_s - self._clock()
            if not waiter.lease.done() and left_s <= 0:
                raise self._too_late(waiter.target)
            await asyncio.wait([waiter.lease], timeout=max(0.0, min(left_s, RECHOOSE_S)))
            if waiter.lease.done():
                return waiter.lease.result()
            self._move(waiter, choose())
            self._review(waiter, deadline_s)

    def _review(self, waiter: _Waiter, deadline_s: float) -> None:
        """Refuse one who waits already, since others have come before it or replicas have gone. Raises RateLimited."""
        queue = self._queues.get(waiter.target[:2], ())
        if waiter in queue:  # else its place has come just now
            ahead = queue.index(waiter)
            self._judge(waiter.target, waiter.wish, ahead, left_s=deadline_s - self._clock(), slack=SLACK)

    def _judge(self, target: Target, wish: Wish, ahead: int, *, left_s: float, slack: float = 1.0) -> None:
        standing = Standing(target[:2], wish.priority, ahead, self._places(target[:2]))
        if (refusal := self.shedding.judge(standing, left_s=left_s, slack=slack)) is not None:
            raise refusal

    def _move(self, waiter: _Waiter, target: Target) -> None:
        old, waiter.target = waiter.target, target
        if old[:2] != target[:2]:
            self._leave(waiter, old[:2])
            self._line_up(waiter)
            self.on_wait(target[:2])

    def _line_up(self, waiter: _Waiter) -> None:
        """Put a waiter behind those of its priority; as a rule that is the end."""
        queue = self._queues.setdefault(waiter.target[:2], deque())
        queue.insert(_place_of(waiter.wish, queue), waiter)
        self.shedding.pace(waiter.target[:2]).join(waiter.wish.priority)

    def _displace(self, priority: int) -> bool:
        """Refuse the youngest waiter of the lowest priority, if that is below ``priority``; whether there was one."""
        lasts = (queue[-1] for queue in self._queues.values())
        last = min(lasts, key=lambda waiter: (waiter.wish.priority, -waiter.arrival), default=None)
        if last is None or last.wish.priority >= priority:
            return False
        last.lease.set_exception(self._busy(last.target, last.wish, Reason.DISPLACED))
        self._leave(last, last.target[:2])
        return True

    def _busy(self, target: Target, wish: Wish, reason: Reason) -> RateLimited:
        self.shedding.count(target[:2], wish.priority, reason)
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
            self._close_if_empty(key)
        self.serve(key)

    def _close_if_empty(self, key: VariantKey) -> None:
        if not self._queues[key]:
            del self._queues[key]
            self.shedding.pace(key).rest()


def _place_of(wish: Wish, queue: Sequence[_Waiter]) -> int:
    """Return how many of a queue are served before one that comes now; as a rule that is all of them."""
    place = len(queue)
    while place and queue[place - 1].wish.priority < wish.priority:
        place -= 1
    return place


def _has_no_more(_: VariantKey) -> bool:
    return False
