"""Attempts: what a Router sees of each attempt to have a request answered, counted by variant."""

from __future__ import annotations

import re
from asyncio import Timeout
from collections.abc import Callable, Collection
from itertools import islice
from typing import TYPE_CHECKING

from serve_app.rollout.histogram import Histogram
from serve_app.rollout.telemetry import SCORED_GAPS, Outcome, VariantKey, VariantStats, Waiting
from serve_app.stream_ends import holds_any_last_event, is_error_event
from serve_app.usage import completion_tokens, told_usage

if TYPE_CHECKING:
    from serve_app.observing.record import RequestRecord

MOST_AGED = 2_000  # open attempts whose age is looked at, the oldest first: a look must not hold up the streams
_FINISH = re.compile(rb'"(?:finish_reason|stop_reason)":\s*"([a-z_]{1,32})"')


class Attempts:
    """All attempts of one Router. Single-threaded: every method runs on its event loop."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._stats: dict[VariantKey, VariantStats] = {}
        self._open: dict[VariantKey, dict[Attempt, None]] = {}  # in the order in which they began
        self._gaps: dict[VariantKey, Histogram] = {}  # of what was taken

    def begin(self, key: VariantKey, *, began_s: float, is_stream: bool) -> Attempt:
        """Return an attempt that has begun; it is open until its ``end`` or ``discard``."""
        attempt = Attempt(self, key, began_s=began_s, is_stream=is_stream)
        self._open.setdefault(key, {})[attempt] = None
        return attempt

    def begin_pair(
        self, key: VariantKey, of_adapter: VariantKey, *, began_s: float, is_stream: bool, is_scored: bool
    ) -> PairedAttempt:
        """Return an attempt that has begun for a variant and for a version of an adapter."""
        adapters = self.begin(of_adapter, began_s=began_s, is_stream=is_stream)
        attempt = PairedAttempt(self, key, began_s=began_s, is_stream=is_stream, of_adapter=adapters)
        attempt.is_scored = adapters.is_scored = is_scored
        self._open.setdefault(key, {})[attempt] = None
        return attempt

    def stats(self, key: VariantKey) -> VariantStats:
        """Return what is being counted for a variant."""
        found = self._stats.get(key)
        if found is None:
            found = self._stats[key] = VariantStats()
        return found

    def take(self) -> dict[VariantKey, VariantStats]:
        """Return what was counted since the last call."""
        taken, self._stats = self._stats, {}
        for key, stats in taken.items():
            self._gaps.setdefault(key, Histogram()).merge(stats.gaps)
        return taken

    def gaps(self) -> dict[VariantKey, Histogram]:
        """Return every gap between the events of streams that was ever counted here."""
        made = {key: Histogram.merged([gaps]) for key, gaps in self._gaps.items()}
        for key, stats in self._stats.items():
            made.setdefault(key, Histogram()).merge(stats.gaps)
        return made

    def streams_open(self) -> dict[VariantKey, int]:
        """Return how many streams have begun and not ended."""
        return {key: sum(each.is_stream and each.pieces > 0 for each in attempts) for key, attempts in self._open.items()}

    def waiting(self, keys: Collection[VariantKey]) -> dict[VariantKey, Waiting]:
        """Return the ages of the oldest open attempts of these variants."""
        now_s = self.clock()
        return {key: _ages(islice(self._open.get(key, ()), MOST_AGED), now_s) for key in keys}

    def withdraw(self, key: VariantKey) -> None:
        """Take back what waits for its first byte at a variant, where another may answer it."""
        for attempt in list(self._open.get(key, ())):
            attempt.withdraw()

    def close(self, attempt: Attempt) -> None:
        """Forget an attempt; a second call does nothing."""
        attempts = self._open.get(attempt.key)
        if attempts is not None and attempts.pop(attempt, 0) is None and not attempts:
            del self._open[attempt.key]


class Attempt:
    """One attempt. ``piece`` is called for every piece of a stream, so it does little."""

    __slots__ = ("_home", "_is_over", "_tail", "began_s", "finish_reason", "first_s", "is_beaten", "is_scored", "is_stream",
                 "is_withdrawn", "key", "last_s", "limit", "on_end", "pieces", "record", "tokens")  # fmt: skip

    def __init__(self, home: Attempts, key: VariantKey, *, began_s: float, is_stream: bool) -> None:
        self.key = key
        self.began_s = began_s
        self.is_stream = is_stream
        self.first_s = self.last_s = 0.0  # when the first piece and the latest one came
        self.pieces = 0
        self.limit: Timeout | None = None  # ends the wait for the first byte, where that may be tried elsewhere
        self.is_withdrawn = False
        self.is_beaten = False  # another replica answers, which was asked because later requests overtook this one
        self.tokens = 0  # at least so many were generated
        self.finish_reason = ""  # that the answer gave
        self.record: RequestRecord | None = None  # of the request, where its client waits for this attempt
        self.on_end: Callable[[Outcome], None] | None = None  # told what became of it, once
        self.is_scored = True  # False: its time until the first byte holds the load of an adapter, which says nothing
        self._home = home
        self._tail = (b"", b"", b"")  # the latest pieces: the last choice, the usage and the end may come apart
        self._is_over = False

    def piece(self, data: bytes) -> None:
        """Take note of a piece of the stream."""
        if not data:
            self.limit = None  # the stream has ended without a piece: nothing is waited for
            return
        now_s = self._home.clock()
        stats = self._home.stats(self.key)
        if not self.pieces:
            self.first_s = now_s
            self.limit = None
            if self.is_scored:
                stats.ttft.observe(now_s - self.began_s)
        else:
            stats.gaps.observe(now_s - self.last_s)
            if self.pieces == SCORED_GAPS:
                stats.itl.observe((now_s - self.first_s) / SCORED_GAPS)
        stats.tokens += 1
        self.pieces += 1
        self.last_s = now_s
        self._tail = (*self._tail[1:], data)

    @property
    def tail(self) -> bytes:
        """The latest pieces of the stream."""
        return b"".join(self._tail)

    def now_s(self) -> float:
        """Return what time it is, by the clock of ``last_s``."""
        return self._home.clock()

    def withdraw(self) -> None:
        """End the wait for the first byte now, if the request may be answered by another variant."""
        if self.limit is not None and not self.limit.expired():
            self.is_withdrawn = True
            self.limit.reschedule(0.0)
            self.limit = None

    def end(self, outcome: Outcome, body: bytes = b"") -> None:
        """Count what became of it: ``body`` is a whole answer. Only the first call counts."""
        if self._is_over:
            return
        self._is_over, self.limit = True, None
        self._home.close(self)
        stats = self._home.stats(self.key)
        tail = body or b"".join(self._tail)
        if outcome in (Outcome.OK, Outcome.CANCELLED) and self.is_stream and is_error_event(tail):
            outcome = Outcome.BROKEN  # SDKs leave as soon as they read the error
        elif outcome is Outcome.CANCELLED and holds_any_last_event(tail):
            outcome = Outcome.OK  # the client left after the last event
        stats.outcomes[outcome] += 1
        self._read(tail, body)
        told, self.on_end = self.on_end, None  # it knows the attempt: a cycle, which would keep requests long after their end
        if told is not None:
            told(outcome)
        if self.record is not None:
            self.record.attempted(outcome, told=told_usage(tail), events=self.pieces)
        if outcome is Outcome.OK:
            self._score(stats)

    def discard(self) -> None:
        """Forget it: the replica refused because it is stopping, which says nothing about the variant."""
        if self.record is not None and not self._is_over:
            self.record.attempted(None)
        self._is_over, self.limit, self.on_end = True, None, None
        self._home.close(self)

    def _read(self, tail: bytes, body: bytes) -> None:
        self.tokens = completion_tokens(body) if body else self.pieces
        for reason in _FINISH.findall(tail)[-1:]:
            self.finish_reason = reason.decode()

    def _score(self, stats: VariantStats) -> None:
        if self.is_scored:
            stats.e2e.observe(self._home.clock() - self.began_s)
        if 2 <= self.pieces <= SCORED_GAPS:
            stats.itl.observe((self.last_s - self.first_s) / (self.pieces - 1))
        if not self.pieces:  # those of a stream were counted as they came
            stats.tokens += self.tokens
        if self.finish_reason:
            stats.finish_reasons[self.finish_reason] += 1


class PairedAttempt(Attempt):
    """An attempt of a variant that is one of an adapter's version as well.

    Both count what became of it: who was to blame cannot be seen from outside, and both are judged by comparison only.
    A variant's faults meet all versions of an adapter alike, and an adapter's all variants, because the two are chosen
    independently: so neither tips the other's gates. Only a version that cannot be loaded is the adapter's fault alone,
    unless another variant can load it.
    """

    __slots__ = ("of_adapter",)

    def __init__(self, home: Attempts, key: VariantKey, *, began_s: float, is_stream: bool, of_adapter: Attempt) -> None:
        super().__init__(home, key, began_s=began_s, is_stream=is_stream)
        self.of_adapter = of_adapter

    def piece(self, data: bytes) -> None:
        """Take note of a piece of the stream."""
        super().piece(data)
        self.of_adapter.piece(data)

    def end(self, outcome: Outcome, body: bytes = b"") -> None:
        """Count what became of it, for both."""
        super().end(outcome, body)
        self.of_adapter.end(outcome, body)

    def discard(self) -> None:
        """Forget it, for both."""
        super().discard()
        self.of_adapter.discard()

    def blame_adapter(self) -> None:
        """Count that the version could not be loaded, which says nothing about the variant."""
        super().discard()
        self.of_adapter.end(Outcome.SERVER_ERROR)


def _ages(attempts: islice[Attempt], now_s: float) -> Waiting:
    made = Waiting()
    for attempt in attempts:
        if not attempt.is_scored:
            continue
        made.whole.observe(now_s - attempt.began_s)
        if not attempt.is_stream:
            continue
        if not attempt.pieces:
            made.first.observe(now_s - attempt.began_s)
        elif attempt.pieces <= SCORED_GAPS:
            made.gap.observe((now_s - attempt.first_s) / attempt.pieces)
    return made
