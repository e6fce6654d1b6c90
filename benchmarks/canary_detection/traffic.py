"""Traffic: made-up requests of a canary, one by one, and of a baseline, as counts; both as gates are shown them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from serve_app.rollout.histogram import GROWTH, LOWEST_S, Histogram
from serve_app.rollout.telemetry import SCORED_GAPS, Outcome, VariantStats, Waiting
from serve_app.rollout.verdict import Baselines

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
TTFT_S, ITL_S, ITL_SIGMA, TOKENS = 0.3, 0.03, 0.2, 128
TIMEOUT_S = 60.0  # a hung attempt ends then
LONG, SHORT = 60, 5  # seconds of the baseline's windows
BUCKETS = 480  # up to a day and more
SAMPLE = 200_000  # requests that a baseline's distribution is read from


@dataclass(frozen=True)
class Service:
    """How a variant answers."""

    sigma: float = 0.5  # of the logarithm of the time to the first token
    ttft_ratio: float = 1.0
    itl_ratio: float = 1.0
    error_rate: float = 0.002
    hang_rate: float = 0.0


@dataclass(frozen=True)
class Requests:
    """Durations in seconds of some requests, and what became of them."""

    first: Floats
    itl: Floats
    whole: Floats
    is_failed: npt.NDArray[np.bool_]
    is_hung: npt.NDArray[np.bool_]


def draw(service: Service, count: int, rng: np.random.Generator) -> Requests:
    """Return independent requests. A failed one ends when its first token would have come."""
    first = TTFT_S * service.ttft_ratio * np.exp(service.sigma * rng.standard_normal(count))
    itl = ITL_S * service.itl_ratio * np.exp(ITL_SIGMA * rng.standard_normal(count))
    hung = rng.random(count) < service.hang_rate
    failed = (rng.random(count) < service.error_rate) & ~hung
    first = np.where(hung, TIMEOUT_S, first)
    whole = np.where(failed | hung, first, first + TOKENS * itl)
    return Requests(first, itl, whole, failed, hung)


def buckets(durations_s: Floats) -> Ints:
    """Return the histogram's bucket of each duration."""
    exact = np.log(np.maximum(durations_s, LOWEST_S) / LOWEST_S) / math.log(GROWTH)
    return np.clip(np.ceil(exact - 1e-9), 0, BUCKETS - 1).astype(np.int64)


class Events:
    """Events of known seconds and buckets, as one histogram a second."""

    def __init__(self, at_s: Floats, bucket: Ints, seconds: int) -> None:
        kept = at_s < seconds
        codes, self._counts = np.unique(at_s[kept].astype(np.int64) * BUCKETS + bucket[kept], return_counts=True)
        self._buckets = codes % BUCKETS
        self._ends = np.searchsorted(codes, np.arange(seconds + 1) * BUCKETS)

    def second(self, number: int) -> Histogram:
        """Return what happened in that second, from 0."""
        span = slice(self._ends[number], self._ends[number + 1])
        return Histogram(zip(self._buckets[span].tolist(), self._counts[span].tolist(), strict=True))


class CanaryTrace:
    """The canary's requests in so many seconds, arriving as a Poisson process; second 0 is the first."""

    def __init__(self, service: Service, rate_per_s: float, *, seconds: int, rng: np.random.Generator) -> None:
        start = np.sort(rng.random(rng.poisson(rate_per_s * seconds)) * seconds)
        made = draw(service, len(start), rng)
        end, has_first = start + made.whole, ~(made.is_failed | made.is_hung)
        self._outcomes = {
            Outcome.OK: self._per_second(end[has_first], seconds),
            Outcome.SERVER_ERROR: self._per_second(end[made.is_failed], seconds),
            Outcome.TIMEOUT: self._per_second(end[made.is_hung], seconds),
        }
        scored_at = start + made.first + min(SCORED_GAPS, TOKENS) * made.itl
        self._ttft = Events((start + made.first)[has_first], buckets(made.first[has_first]), seconds)
        self._itl = Events(scored_at[has_first], buckets(made.itl[has_first]), seconds)
        self._e2e = Events(end[has_first], buckets(made.whole[has_first]), seconds)
        self._first = self._open(start, start + made.first, seconds)
        self._whole = self._open(start, end, seconds)

    def second(self, number: int) -> tuple[VariantStats, Waiting]:
        """Return what ended in that second, and what is open at its end."""
        outcomes = Counter({outcome: int(counts[number]) for outcome, counts in self._outcomes.items()})
        ttft, itl, e2e = (events.second(number) for events in (self._ttft, self._itl, self._e2e))
        stats = VariantStats(outcomes=outcomes, ttft=ttft, itl=itl, e2e=e2e)
        return stats, Waiting(first=self._first.second(number), whole=self._whole.second(number))

    @staticmethod
    def _per_second(at_s: Floats, seconds: int) -> Ints:
        return np.bincount(at_s[at_s < seconds].astype(np.int64), minlength=seconds)

    @staticmethod
    def _open(start: Floats, end: Floats, seconds: int) -> Events:
        """Return the ages at the end of every second in which a request is open."""
        first, last = np.ceil(start), np.minimum(np.ceil(end) - 1, seconds)
        count = np.maximum(0, last - first + 1).astype(np.int64)
        starts = np.repeat(start, count)
        nth = np.arange(len(starts)) - np.repeat(np.cumsum(count) - count, count)
        at = np.repeat(first, count) + nth
        return Events(at - 1, buckets(at - starts), seconds)


@dataclass
class BaselineTrace:
    """A baseline in its steady state: of independent Poisson arrivals each bucket's count is Poisson too."""

    ttft: Ints  # (seconds + LONG + 1, BUCKETS): sums up to each second
    itl: Ints
    e2e: Ints
    failures: Ints  # (seconds + LONG + 1,)
    open_first: Ints  # (seconds, BUCKETS)
    open_whole: Ints
    _seen: dict[int, Baselines] = field(default_factory=dict)

    def second(self, number: int) -> Baselines:
        """Return the windows at the end of that second; the long one is renewed only every five seconds, to save time."""
        if (found := self._seen.get(number)) is None:
            waiting = Waiting(first=_histogram(self.open_first[number]), whole=_histogram(self.open_whole[number]))
            long = self._stats(number, LONG) if number % SHORT == 0 else self.second(number - 1).long
            found = self._seen[number] = Baselines(long, self._stats(number, SHORT), waiting)
        return found

    def _stats(self, number: int, last: int) -> VariantStats:
        end = number + LONG + 1
        ttft, itl, e2e = (_histogram(sums[end] - sums[end - last]) for sums in (self.ttft, self.itl, self.e2e))
        failures = int(self.failures[end] - self.failures[end - last])
        outcomes = Counter({Outcome.OK: e2e.total, Outcome.SERVER_ERROR: failures})
        return VariantStats(outcomes=outcomes, ttft=ttft, itl=itl, e2e=e2e)


def baseline_trace(service: Service, rate_per_s: float, *, seconds: int, rng: np.random.Generator) -> BaselineTrace:
    """Return a baseline's counts of so many seconds, after a minute that fills the long window."""
    shapes = _shapes(service)

    def summed(mean: Floats) -> Ints:
        counts = rng.poisson(mean, size=(seconds + LONG, *mean.shape))
        return np.concatenate([np.zeros((1, *mean.shape), dtype=np.int64), np.cumsum(counts, axis=0)])

    well = rate_per_s * (1 - service.error_rate)
    return BaselineTrace(
        ttft=summed(well * shapes[0]),
        itl=summed(well * shapes[1]),
        e2e=summed(well * shapes[2]),
        failures=summed(np.array(rate_per_s * service.error_rate)),
        open_first=rng.poisson(rate_per_s * shapes[3], size=(seconds, BUCKETS)),
        open_whole=rng.poisson(rate_per_s * shapes[4], size=(seconds, BUCKETS)),
    )


@cache
def _shapes(service: Service) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return the shares of TTFT, ITL and whole times by bucket, and how many seconds a request waits in each for both."""
    made = draw(service, SAMPLE, np.random.default_rng(1))
    times = (made.first, made.itl, made.whole)
    shares = [np.bincount(buckets(each), minlength=BUCKETS) / SAMPLE for each in times]
    return shares[0], shares[1], shares[2], _waits(shares[0]), _waits(shares[2])


def _waits(share: Floats) -> Floats:
    ends = LOWEST_S * GROWTH ** np.arange(BUCKETS)
    widths = np.diff(ends, prepend=0.0)
    return np.asarray(widths * (1 - np.cumsum(share)).clip(min=0), dtype=np.float64)


def _histogram(counts: Iterable[int]) -> Histogram:
    row = np.asarray(counts)
    found = np.flatnonzero(row)
    return Histogram(zip(found.tolist(), row[found].tolist(), strict=True))
