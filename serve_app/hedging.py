"""Hedges: a request that is slow to be answered is sent to a second replica, and the first answer is the answer.

Slow is what has waited for ``hedge_after``, where a model has it, and what later requests have overtaken, for all others.

"The Tail at Scale" (Dean, Barroso 2013, https://doi.org/10.1145/2408776.2408794), hedged requests: the few that meet a slow
replica cost a second attempt each, and nobody waits for the slowest of many.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from serve_app.affinity import prefix_key
from serve_app.attempts import Attempt
from serve_app.call import Reply
from serve_app.engine_errors import UpstreamRejected
from serve_app.errand import Errand, Targets
from serve_app.errors import PlatformError
from serve_app.pool import Lease, ReplicaPool
from serve_app.retry_budget import RetryBudgets
from serve_app.rollout.telemetry import Outcome
from serve_app.view import RoutingView

Ask = Callable[[Lease], Coroutine[Any, Any, Reply | None]]  # ends the lease, unless its reply is a stream that holds it
_Asked = asyncio.Task[Reply | None]

logger = logging.getLogger("ray.serve")


class Hedges:
    """Sends requests to a second replica. One per Router, on its event loop.

    Args:
        targets: where a request goes.
        pool: gives the second place, where one is free at once.
        view: the routing document of now.
        budgets: allow, and count, what is sent once more.
    """

    def __init__(self, *, targets: Targets, pool: ReplicaPool, view: Callable[[], RoutingView], budgets: RetryBudgets) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()  # second requests by model, variant and whether they won or lost
        self._targets = targets
        self._pool = pool
        self._view = view
        self._budgets = budgets
        self._beaten: set[Lease] = set()

    async def answer(self, ask: Ask, lease: Lease, errand: Errand) -> Reply | None:
        """Return what ``ask`` returns or raises for the lease, or for a second one that was quicker.

        The other is cancelled then, with ``is_beaten`` true of its lease. An answer goes before a failure, unless that is the
        request's own fault.
        """
        model = self._view().models.get(errand.model)
        if model is None or model.hedge_after_s is None:
            return await self._answer_unless_beaten(ask, lease, errand)
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
            losers = {task: held for task, held in asked.items() if task is not winner}
            await self._end(losers, [held for held in losers.values() if not (winner is None and held is lease)])

    def rescue(self, ask: Ask, lease: Lease, errand: Errand, *, attempt: Attempt, limit: asyncio.Timeout) -> bool:
        """Send a request that others overtook to a second replica as well; return whether that was done.

        Once, and only while ``answer`` waits for it: that returns the second answer, if it comes first, and ``limit`` ends the
        first wait. Nothing is done without a free place at another replica of the variant, or where the budget is spent.
        """
        if not errand.may_go_on or not self._budgets.has_room(errand.model):
            return False
        try:
            second = self._second(lease, errand)
        except PlatformError:  # its variant has gone
            return False
        if second is None:
            return False
        logger.warning(
            "replica %s holds a request that later ones overtook; %s gets it, too", lease.replica_id, second.replica_id
        )
        task = asyncio.create_task(ask(second))
        errand.rescue = (task, second)
        errand.may_be_rescued, errand.was_rescued = False, True

        def end_first(task: _Asked) -> None:
            if task.cancelled():
                return
            if (error := task.exception()) is not None and not isinstance(error, PlatformError):
                logger.error("a second attempt failed by a fault of the Router", exc_info=error)
            if _decides(task):
                attempt.is_beaten = True
                with contextlib.suppress(RuntimeError):  # it has ended in the same moment
                    limit.reschedule(0.0)

        task.add_done_callback(end_first)
        return True

    def concede(self, lease: Lease, attempt: Attempt) -> bool:
        """End an attempt whose rescue was quicker: the replica failed, though not for its variant; whether that was so."""
        if not attempt.is_beaten:
            return False
        attempt.record = None  # the client has its answer from the other one
        attempt.end(Outcome.ABANDONED)
        self._pool.judge(lease, Outcome.TIMEOUT)
        return True

    def abandon(self, lease: Lease, attempt: Attempt) -> bool:
        """Take an attempt that was cancelled out of all counts if another replica was quicker; whether that was so."""
        if lease not in self._beaten:
            return False
        attempt.record = None  # the client has its answer from the other one
        attempt.end(Outcome.ABANDONED)
        return True

    async def _answer_unless_beaten(self, ask: Ask, lease: Lease, errand: Errand) -> Reply | None:
        """Return what ``ask`` returns or raises for the lease, or, where that is nothing, for what ``rescue`` began."""
        errand.may_be_rescued = not errand.was_rescued
        try:
            try:
                reply = await ask(lease)
            except PlatformError as err:
                if errand.rescue is None or _is_its_own_fault(err) or (reply := await self._rescued(lease, errand)) is None:
                    raise
                return reply
            if errand.rescue is None:
                return reply
            if reply is None:
                return await self._rescued(lease, errand)
            self.counts[errand.model, lease.variant, "lost"] += 1
            return reply
        finally:
            errand.may_be_rescued = False
            if errand.rescue is not None:
                (task, second), errand.rescue = errand.rescue, None
                await self._end({task: second}, [second])

    async def _rescued(self, lease: Lease, errand: Errand) -> Reply | None:
        assert errand.rescue is not None  # noqa: S101  (the caller has looked)
        task, _ = errand.rescue
        await asyncio.wait([task])  # unlike the task itself, it may be cancelled without the answer being lost
        errand.rescue = None
        is_won = task.exception() is None and task.result() is not None
        self.counts[errand.model, lease.variant, "won" if is_won else "lost"] += 1
        return task.result()

    def _second(self, lease: Lease, errand: Errand) -> Lease | None:
        """Return a place on another replica of the variant, where one is free now and may be used."""
        answers = errand.call.answerer.variant
        try:
            target = self._targets.choose(errand)
        finally:
            errand.call.answerer.variant = answers  # which the choice would change, also where nothing comes of it
        if target.variant != lease.variant:
            return None
        prefix = prefix_key(errand.call.body, session_id=errand.call.session_id)
        found = self._pool.try_lease(target, prefix=prefix, exclude=(*errand.tried, lease.replica_id))
        if found is None:
            return None
        if found.replica_id in (*errand.tried, lease.replica_id) or not self._budgets.take(errand.model):
            found.release()
            return None
        errand.tried.append(found.replica_id)
        return found

    def _count(self, first: Lease, won: Lease, errand: Errand, *, has_second: bool) -> None:
        if has_second:
            self.counts[errand.model, first.variant, "lost" if won is first else "won"] += 1

    async def _end(self, losers: Mapping[_Asked, Lease], beaten: Collection[Lease]) -> None:
        """Cancel those that go on, and free what those hold that answered in the same moment."""
        self._beaten.update(beaten)
        for task in losers:
            task.cancel()
        replies = await asyncio.gather(*losers, return_exceptions=True)
        self._beaten.difference_update(beaten)
        for reply, lease in zip(replies, losers.values(), strict=True):
            if isinstance(reply, Reply) and not isinstance(reply.body, bytes):
                await reply.body.aclose()
            lease.release()  # a task that was cancelled before its first step has not


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
    return _is_its_own_fault(error)


def _is_its_own_fault(error: BaseException) -> bool:
    """Whether an error is the request's fault: any replica would say so."""
    return isinstance(error, UpstreamRejected) and not error.is_engines_fault
