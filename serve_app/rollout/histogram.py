"""Histogram: durations in buckets that each are 5 % wider than the one before; merged, compared and read by quantile."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Self

GROWTH = 1.05  # what is read from a histogram is at most this factor over what was observed
LOWEST_S = 1e-5
_LOG_GROWTH = math.log(GROWTH)
_TOP = math.ceil(math.log(1e5 / LOWEST_S) / _LOG_GROWTH)  # the last bucket takes everything over a day


class Histogram:
    """Counts by bucket; bucket ``i`` holds durations over ``LOWEST_S * GROWTH**(i-1)`` and up to ``LOWEST_S * GROWTH**i``."""

    __slots__ = ("counts", "total")

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self.counts: Counter[int] = Counter(dict(counts))
        self.total = sum(self.counts.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment]

    def observe(self, duration_s: float) -> None:
        """Count one duration; what is below the first bucket's end counts there."""
        self.counts[bucket_index(duration_s)] += 1
        self.total += 1

    def merge(self, other: Histogram) -> None:
        """Add what another has counted."""
        self.counts.update(other.counts)
        self.total += other.total

    def over(self, threshold_s: float) -> int:
        """Return how many are over a threshold, which is rounded up to the end of its bucket."""
        index = bucket_index(threshold_s)
        return sum(count for bucket, count in self.counts.items() if bucket > index)

    def value_at(self, rank: int) -> float | None:
        """Return the end (in seconds) of the bucket that holds the ``rank``-th smallest, counted from 1; None: it has fewer."""
        if not 1 <= rank <= self.total:
            return None
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return bucket_end_s(bucket)
        return None

    def quantile(self, q: float) -> float | None:
        """Return the end (in seconds) of the bucket that holds the ``q``-quantile, 0 < q <= 1; None: nothing was counted."""
        return self.value_at(max(1, math.ceil(q * self.total)))

    def pairs(self) -> list[tuple[int, int]]:
        """Return (bucket, count) in order, for storing."""
        return sorted(self.counts.items())

    @classmethod
    def merged(cls, histograms: Iterable[Histogram]) -> Self:
        """Return the sum of several."""
        made = cls()
        for each in histograms:
            made.merge(each)
        return made


def bucket_index(duration_s: float) -> int:
    """Return the bucket of a duration."""
    if duration_s <= LOWEST_S:
        return 0
    return min(_TOP, math.ceil(math.log(duration_s / LOWEST_S) / _LOG_GROWTH - 1e-9))


def bucket_end_s(index: int) -> float:
    """Return the longest duration (in seconds) that a bucket holds."""
    return float(LOWEST_S * GROWTH**index)
