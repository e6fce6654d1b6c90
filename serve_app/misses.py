"""Misses: what follows an attempt without an answer: another replica, another variant, or an error for the client."""

from __future__ import annotations

import asyncio
import logging

from serve_app.attempts import Attempt, PairedAttempt
from serve_app.engine_errors import Unreadable, UpstreamRejected
from serve_app.errand import ATTEMPTS, Errand, Targets
from serve_app.errors import DeadlineExceeded, PlatformError, Unavailable
from serve_app.pool import Lease, ReplicaPool
from serve_app.retry_budget import RetryBudgets
from serve_app.rollout.telemetry import Outcome
from serve_app.sse import begins_events
from serve_app.stream_ends import is_error_event
from serve_app.upstream import AdapterMissing, NoConnectionLeft, ReplicaDraining, ReplicaUnreachable

logger = logging.getLogger("ray.serve")

MISSES = (TimeoutError, AdapterMissing, ReplicaDraining, ReplicaUnreachable, UpstreamRejected, Unreadable)


class Misses:
    """Decides for the attempts of one Router, on its event loop.

    What a replica failed is tried once more, at another one of its variant or at the baseline; a request that fails there too
    might fail everywhere. Failures are followed by another attempt only as ``budgets`` allow.
    """

    def __init__(self, *, targets: Targets, pool: ReplicaPool, budgets: RetryBudgets) -> None:
        self._targets = targets
        self._pool = pool
        self._budgets = budgets

    def check_first(self, first: bytes, lease: Lease, errand: Errand) -> None:
        """Look at how a stream begins.

        Raises:
            Unreadable: it is empty, or no stream of events.
            UpstreamRejected: it begins with an error that another replica can spare the client.
        """
        if not begins_events(first):
            raise Unreadable
        if is_error_event(first) and self._may_spare(errand, lease):
            raise UpstreamRejected(500, first)

    def see(self, err: Exception, lease: Lease, errand: Errand, *, attempt: Attempt) -> None:
        """Note that there was no answer. Raises what the client is to hear, unless another replica is to be tried."""
        match err:
            case ReplicaDraining():
                attempt.discard()
                self._pool.drain(lease.replica_id)
            case TimeoutError() if lease.is_lost:
                attempt.end(Outcome.UNREACHABLE)
                # It may hang because of this request: so that counts as a connection that broke.
                self._lose(lease, errand, ReplicaUnreachable("its heartbeats have stopped", was_sent=True))
            case ReplicaUnreachable():
                _end_unreached(attempt, err)
                self._lose(lease, errand, err)
            case AdapterMissing():
                self._miss_adapter(lease, errand, attempt)
            case UpstreamRejected(is_engines_fault=False):
                attempt.end(Outcome.REJECTED)
                raise err
            case UpstreamRejected() | TimeoutError() if errand.call.deadline.is_over:
                attempt.end(Outcome.CANCELLED)  # the client gave it no more time, which is no fault of the replica
                raise errand.call.deadline.exceeded("first_token" if errand.is_stream else "answer") from err
            case UpstreamRejected() | Unreadable():
                attempt.end(Outcome.SERVER_ERROR)
                self._give_up(lease, errand, err)
            case _:
                self._late(lease, errand, attempt)

    def note(self, err: Exception, lease: Lease, errand: Errand, *, attempt: Attempt) -> None:
        """Note the same of a second attempt: the first is not to pay for it. Raises what is the request's own fault."""
        match err:
            case ReplicaDraining():
                attempt.discard()
                self._pool.drain(lease.replica_id)
            case ReplicaUnreachable():
                _end_unreached(attempt, err)
            case UpstreamRejected(is_engines_fault=False):
                attempt.end(Outcome.REJECTED)
                raise err
            case UpstreamRejected() | Unreadable():
                attempt.end(Outcome.SERVER_ERROR)
            case _ if lease.is_lost:
                attempt.end(Outcome.UNREACHABLE)
            case _:
                is_of_client = attempt.is_withdrawn or errand.call.deadline.is_over
                attempt.end(Outcome.ABANDONED if is_of_client else Outcome.TIMEOUT)

    def _may_spare(self, errand: Errand, lease: Lease) -> bool:
        """Whether another replica may answer instead of this one, or is about to."""
        has_other = errand.rescue is not None or self._targets.has_other(errand, lease)
        return has_other or self._targets.has_spare(errand, lease.variant)

    def _miss_adapter(self, lease: Lease, errand: Errand, attempt: Attempt) -> None:
        assert isinstance(attempt, PairedAttempt)  # noqa: S101  (only an adapter's request is refused so)
        assert errand.adapter is not None  # noqa: S101
        attempt.blame_adapter()
        has_other = self._targets.has_spare(errand, lease.variant)
        errand.error = errand.adapter.miss(lease.variant, has_other=has_other)
        if has_other:
            errand.failed.add(lease.variant)
        errand.is_anew = True
        logger.warning("a replica cannot load %s/%s", *attempt.of_adapter.key)

    def _late(self, lease: Lease, errand: Errand, attempt: Attempt) -> None:
        is_of_adapter = isinstance(attempt, PairedAttempt) and attempt.of_adapter.is_withdrawn
        attempt.end(Outcome.ABANDONED if attempt.is_withdrawn or is_of_adapter else Outcome.TIMEOUT)
        error = DeadlineExceeded("the answer did not begin in time")
        if is_of_adapter and errand.adapter is not None:
            errand.adapter.give_up()
            errand.error, errand.is_anew = error, True
        else:
            self._give_up(lease, errand, error, is_forced=attempt.is_withdrawn)

    def _lose(self, lease: Lease, errand: Errand, err: ReplicaUnreachable) -> None:
        logger.warning("replica %s unreachable: %s", lease.replica_id, err)
        errand.broken += err.was_sent
        may_go_on = errand.may_go_on and len(errand.tried) + 1 < ATTEMPTS  # this one is not among the tried yet
        if may_go_on and not lease.is_lost and not self._budgets.take(errand.model):
            raise errand.error or unreached(errand)
        if self._targets.has_spare(errand, lease.variant):  # rather than on another replica of a variant on trial
            errand.failed.add(lease.variant)
            errand.is_anew = True
        elif err.was_sent and errand.adapter is not None and errand.adapter.has_spare:
            errand.adapter.give_up()
            errand.is_anew = True

    def _give_up(self, lease: Lease, errand: Errand, error: PlatformError, *, is_forced: bool = False) -> None:
        """Leave the request to the baseline or to another replica. Raises the error when neither can, or may, have it."""
        adapter, who, to = errand.adapter, (lease.variant, errand.model), "the baseline"
        is_spared = is_forced or self._targets.has_spare(errand, lease.variant)
        has_version = adapter is not None and adapter.has_spare
        if not (is_spared or has_version or self._targets.has_other(errand, lease)):
            raise error
        if not is_forced and not self._budgets.take(errand.model):
            raise error
        errand.faults += 1
        errand.error, errand.is_anew = error, is_spared or has_version
        if is_spared:
            errand.failed.add(lease.variant)
        elif has_version and adapter is not None:
            who = adapter.version, adapter.name
            adapter.give_up()
        else:
            to = "another replica"
        logger.warning("%s of %s failed a request, which %s gets: %s", *who, to, error.message)


def _end_unreached(attempt: Attempt, err: ReplicaUnreachable) -> None:
    if isinstance(err, NoConnectionLeft):
        attempt.discard()  # says nothing about the replica
    else:
        attempt.end(Outcome.UNREACHABLE)


def unreached(errand: Errand) -> Unavailable:
    """Return the error of a request that no replica has answered."""
    return Unavailable(f"no replica of model {errand.name!r} could be reached", retry_after_s=5)


def end_when_lost(limit: asyncio.Timeout, lease: Lease) -> None:
    """Have the wait for the first byte end at once when its replica is lost."""

    def end() -> None:
        if not limit.expired():
            limit.reschedule(0.0)

    lease.on_lost = end
