"""Hedges: a request that is slow to be answered is sent to a second replica, and the first answer is the answer.

"The Tail at Scale" (Dean, Barroso 2013, https://doi.org/10.1145/2408776.2408794), hedged requests: the few that meet a slow
replica cost a second attempt each, and nobody waits for the slowest of many.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from serve_app.affinity import prefix_key
from serve_app.attempts import Attempt
from serve_app.call import Reply
from serve_app.engine_errors import UpstreamRejected
from serve_app.errand import Errand, Targets
from serve_app.pool import Lease, ReplicaPool
from serve_app.rollout.telemetry import Outcome
from serve_app.view import RoutingView

Ask = Callable[[Lease], Coroutine[Any, Any, Reply | None]]  # ends the lease, unless its reply is a stream that holds it
_Asked = asyncio.Task[Reply | None]


class Hedges:
    """Sends requests of models with ``hedge_after`` to a second replica. One per Router, on its event loop.

    Args:
        targets: where a request goes.
        pool: gives the second place, where one is free at once.
        view: the routing document of now.
        may_send: whether one more request for a model may be sent once more; a call that allows it counts it.
    """

    def __init__(
        self, *, targets: Targets, pool: ReplicaPool, view: Callable[[], RoutingView], may_send: Callable[[str], bool]
    ) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()  # second requests by model, variant and whether they won or lost
        self._targets = targets
        self._pool = pool
        self._view = view
        self._may_send = may_send
        self._beaten: set[Lease] = set()

    async def answer(self, ask: Ask, lease: Lease, errand: Errand) -> Reply | None:
        """Return what ``ask`` returns or raises for the lease, or for a second one that was quicker.

        The other is cancelled then, with ``is_beaten`` true of its lease. An answer goes before a failure, unless that is the
        request's own fault.
        """
        model = self._view().models.get(errand.model)
        if model is None or model.hedge_after_s is None:
            return await ask(lease)
        asked = {asyncio.create_task(ask(lease)): lease}
        winner: _Asked | None = None
        try:
            await asyncio.wait(asked, timeout=model.hedge_after_s)
            if not any(task.done() for task in asked) and (second := self._second(lease, errand)) is not None:
                asked[asyncio.create_task(ask(second))] = second
            winner = await _decided(asked)
            self._count(lease, asked[winner], errand, has_second=len(asked) > 1)
            return winner.result()
        finally:
            # Of a client that left, one attempt says so, and the other nothing.
            beaten = [held for task, held in asked.items() if task is not winner and not (winner is None and held is lease)]
            await self._end([task for task in asked if task is not winner], beaten)

    def abandon(self, lease: Lease, attempt: Attempt) -> bool:
        """Take an attempt that was cancelled out of all counts if another replica was quicker; whether that was so."""
        if lease not in self._beaten:
            return False
        attempt.record = None  # the client has its answer from the other one
        attempt.end(Outcome.ABANDONED)
        return True

    def _second(self, lease: Lease, errand: Errand) -> Lease | None:
        """Return a place on another replica of the variant, where one is free now and may be used."""
        target = self._targets.choose(errand)
        if target.variant != lease.variant:
            return None
        prefix = prefix_key(errand.call.body, session_id=errand.call.session_id)
        found = self._pool.try_lease(target, prefix=prefix, exclude=(*errand.tried, lease.replica_id))
        if found is None:
            return None
        if found.replica_id in (*errand.tried, lease.replica_id) or not self._may_send(errand.model):
            found.release()
            return None
        errand.tried.append(found.replica_id)
        return found

    def _count(self, first: Lease, won: Lease, errand: Errand, *, has_second: bool) -> None:
        if has_second:
            self.counts[errand.model, first.variant, "lost" if won is first else "won"] += 1

    async def _end(self, losers: Collection[_Asked], beaten: Collection[Lease]) -> None:
        """Cancel those that go on, and free what those hold that answered in the same moment."""
        self._beaten.update(beaten)
        for task in losers:
            task.cancel()
        replies = await asyncio.gather(*losers, return_exceptions=True)
        self._beaten.difference_update(beaten)
        for reply in replies:
            if isinstance(reply, Reply) and not isinstance(reply.body, bytes):
                await reply.body.aclose()


async def _decided(asked: Collection[_Asked]) -> _Asked:
    """Return the first that decides what the client hears, or one of all that failed: one that says why, if there is one."""
    pending = set(asked)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if _decides(task):
                return task
    return next((task for task in asked if task.exception() is not None), next(iter(asked)))


def _decides(task: _Asked) -> bool:
    error = task.exception()
    if error is None:
        return task.result() is not None
    return isinstance(error, UpstreamRejected) and not error.is_engines_fault
