"""Telemetry: what Routers count for each variant, and how they report it to Rollouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from serve_app.rollout.histogram import Histogram

# Of a long stream only its first gaps count for the mean that gates look at, so that a fault shows before the stream ends.
SCORED_GAPS = 64


class Outcome(StrEnum):
    """What became of one attempt to have a request answered by a variant (or, for pipelines, by a version)."""

    OK = "ok"
    REJECTED = "rejected"  # 4xx: the request's fault
    CANCELLED = "cancelled"  # the client left
    ABANDONED = "abandoned"  # taken back before its first byte, because the variant was withdrawn
    SERVER_ERROR = "server_error"  # 5xx, or an error event in place of an answer
    UNREACHABLE = "unreachable"  # no connection, or it broke before the first byte
    TIMEOUT = "timeout"  # no first byte in time
    BROKEN = "broken"  # the stream broke or reported an error after its first byte


FAILURES = frozenset({Outcome.SERVER_ERROR, Outcome.UNREACHABLE, Outcome.TIMEOUT, Outcome.BROKEN})
JUDGED = FAILURES | {Outcome.OK}  # the others say nothing about the variant


@dataclass(slots=True)
class VariantStats:
    """Counts of attempts that ended, and durations in seconds as they became known."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    tokens: int = 0  # generated: events of streams, and what whole answers say they have
    ttft: Histogram = field(default_factory=Histogram)  # of streams: from the attempt's start to its first byte
    gaps: Histogram = field(default_factory=Histogram)  # every gap between the pieces of a stream
    itl: Histogram = field(default_factory=Histogram)  # one a stream: the mean of its first SCORED_GAPS gaps
    e2e: Histogram = field(default_factory=Histogram)  # of attempts that ended well: from start to end

    @property
    def judged(self) -> int:
        """Attempts that say something about the variant."""
        return sum(self.outcomes[outcome] for outcome in JUDGED)

    @property
    def failures(self) -> int:
        """Attempts that the variant failed."""
        return sum(self.outcomes[outcome] for outcome in FAILURES)

    def merge(self, other: VariantStats) -> None:
        """Add what another has counted."""
        self.outcomes.update(other.outcomes)
        self.finish_reasons.update(other.finish_reasons)
        self.tokens += other.tokens
        for mine, theirs in zip(self._histograms(), other._histograms(), strict=True):
            mine.merge(theirs)

    def _histograms(self) -> tuple[Histogram, ...]:
        return self.ttft, self.gaps, self.itl, self.e2e

    @classmethod
    def merged(cls, many: Iterable[VariantStats]) -> Self:
        """Return the sum of several."""
        made = cls()
        for each in many:
            made.merge(each)
        return made


@dataclass(slots=True)
class Waiting:
    """Attempts that are open right now, by how long they have waited (in seconds). A hang shows here and nowhere else."""

    first: Histogram = field(default_factory=Histogram)  # age of streams whose first byte has not come
    whole: Histogram = field(default_factory=Histogram)  # age of attempts, of both kinds, that have not ended
    gap: Histogram = field(default_factory=Histogram)  # of begun streams not scored yet: the mean gap, if a piece came now

    def merge(self, other: Waiting) -> None:
        """Add what another has counted."""
        self.first.merge(other.first)
        self.whole.merge(other.whole)
        self.gap.merge(other.gap)


@dataclass(slots=True)
class ShadowStats:
    """Copies of requests that a variant got without answering a client."""

    copied: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # by reason: busy, no_replica, too_many, shed
    failed: Counter[str] = field(default_factory=Counter)  # by outcome
    compared: int = 0
    agreed: int = 0
    similarity_sum: float = 0.0  # of cosines, over `compared`; equal texts are 1
    slower: Histogram = field(default_factory=Histogram)  # first byte: how many seconds later than the client's
    faster: Histogram = field(default_factory=Histogram)  # or earlier

    def merge(self, other: ShadowStats) -> None:
        """Add what another has counted."""
        self.copied += other.copied
        self.dropped.update(other.dropped)
        self.failed.update(other.failed)
        self.compared += other.compared
        self.agreed += other.agreed
        self.similarity_sum += other.similarity_sum
        self.slower.merge(other.slower)
        self.faster.merge(other.faster)


VariantKey = tuple[str, str]  # (model or pipeline, variant or version)


@dataclass(frozen=True, slots=True)
class RouterReport:
    """What a Router has counted since its last report that was taken. ``seq`` tells a repeated report from a new one."""

    router: str
    seq: int
    table_version: int  # of the traffic table in force there
    stats: Mapping[VariantKey, VariantStats]
    waiting: Mapping[VariantKey, Waiting]
    shadows: Mapping[VariantKey, ShadowStats] = field(default_factory=dict)
    held: Mapping[VariantKey, int] = field(default_factory=dict)  # requests that wait there now, since no replica takes them
