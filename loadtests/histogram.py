"""Histogram: durations in buckets of one percent, so that memory is bounded however long a run lasts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

LOWEST_S = 1e-5
HIGHEST_S = 1e5
GROWTH = 1.01  # a quantile is within half of this of what was observed
_LOG = math.log(GROWTH)
SIZE = math.ceil(math.log(HIGHEST_S / LOWEST_S) / _LOG) + 1


class Histogram:
    """Counts by bucket, with the exact sum, least and most. Bucket 0 holds what is at or under ``LOWEST_S``.

    Attributes:
        endless: requests that never had this time although they waited for it; quantiles count them as infinite.
    """

    __slots__ = ("counts", "endless", "greatest_s", "least_s", "sum_s")

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(SIZE, dtype=np.int64)
        self.sum_s = 0.0
        self.least_s = math.inf
        self.greatest_s = 0.0
        self.endless = 0

    @property
    def count(self) -> int:
        """Return how many durations were observed."""
        return int(self.counts.sum())

    @property
    def mean_s(self) -> float:
        """Return the exact mean; NaN without a duration."""
        count = self.count
        return self.sum_s / count if count else math.nan

    def observe(self, duration_s: float) -> None:
        """Count one duration."""
        # One by one the interpreter is several times faster than numpy.
        self.counts[_index(duration_s)] += 1
        self.sum_s += duration_s
        self.least_s = min(self.least_s, duration_s)
        self.greatest_s = max(self.greatest_s, duration_s)

    def observe_all(self, durations_s: npt.NDArray[np.float64]) -> None:
        """Count many durations."""
        if not len(durations_s):
            return
        clipped = np.clip(durations_s, LOWEST_S, HIGHEST_S)
        np.add.at(self.counts, np.ceil(np.log(clipped / LOWEST_S) / _LOG - 1e-9).astype(np.int64), 1)
        self.sum_s += float(durations_s.sum())
        self.least_s = min(self.least_s, float(durations_s.min()))
        self.greatest_s = max(self.greatest_s, float(durations_s.max()))

    def merge(self, other: Histogram) -> None:
        """Add what another has counted."""
        self.counts += other.counts
        self.sum_s += other.sum_s
        self.least_s = min(self.least_s, other.least_s)
        self.greatest_s = max(self.greatest_s, other.greatest_s)
        self.endless += other.endless

    def quantile(self, q: float) -> float:
        """Return the ``q``-quantile in seconds; infinite where it falls on endless ones, NaN where there is nothing."""
        total = self.count + self.endless
        if not total:
            return math.nan
        rank = max(1, math.ceil(q * total))
        if rank > total - self.endless:
            return math.inf
        index = int(np.searchsorted(np.cumsum(self.counts), rank))
        middle = LOWEST_S * GROWTH ** (index - 0.5) if index else 0.0
        return min(max(middle, self.least_s), self.greatest_s)

    def cumulated(self) -> list[tuple[float, float]]:
        """Return (seconds, share at or under it) where the share changes; endless ones keep it under 1."""
        total = self.count + self.endless
        places = np.flatnonzero(self.counts)
        shares = np.cumsum(self.counts[places]) / total if total else np.zeros(0)
        ends = (min(LOWEST_S * GROWTH ** int(place), self.greatest_s) for place in places)
        return list(zip(ends, shares.tolist(), strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` takes."""
        places = np.flatnonzero(self.counts)
        return {
            "buckets": [[int(place), int(self.counts[place])] for place in places],
            "sum_s": self.sum_s,
            "least_s": self.least_s if math.isfinite(self.least_s) else None,
            "greatest_s": self.greatest_s,
            "endless": self.endless,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Return the histogram of a document. Raises KeyError, TypeError, ValueError or IndexError for one that is none."""
        made = cls()
        buckets: Sequence[Sequence[int]] = document["buckets"]
        for place, count in buckets:
            made.counts[place] = count
        made.sum_s = float(document["sum_s"])
        made.least_s = math.inf if document["least_s"] is None else float(document["least_s"])
        made.greatest_s = float(document["greatest_s"])
        made.endless = int(document["endless"])
        return made


def _index(duration_s: float) -> int:
    if duration_s <= LOWEST_S:
        return 0
    return min(SIZE - 1, math.ceil(math.log(duration_s / LOWEST_S) / _LOG - 1e-9))
