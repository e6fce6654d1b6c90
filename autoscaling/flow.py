"""Flow: how many requests arrive and how long one keeps a slot, estimated from what was seen of a deployment."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from itertools import pairwise
from typing import NamedTuple

from autoscaling.observation import Observation

KEEP_S = 600.0
RAMP_S = 30.0  # length of one of the stretches that a ramp is read from
RAMP_STRETCHES = 4  # a step shows in two of the differences between stretches, a ramp in all three
MINUTE_S = 60.0
SHORT_S = (15.0, 5.0)  # windows in which a change of the rate shows
SURE = 2.0  # standard deviations that chance is given
BIN_S = 5.0
MOST_DISPERSION = 25.0
MIN_BINS, MIN_ARRIVALS = 6, 20.0
TRIMMED = 1.6  # mean square of a normal variable over that of its smaller nine tenths
MIN_SERVED = 10.0
SERVICE_S = (60.0, 120.0, 300.0, KEEP_S)  # windows that a service time is read from: the shortest that holds enough


class _Seen(NamedTuple):
    at_s: float
    arrived: float
    served: float  # requests that were begun and ended, each counted half
    busy: float  # integral of `running` over time, in seconds
    ready: float  # integral of `ready`


class Service(NamedTuple):
    """How long a request keeps a slot, in seconds, and how many requests a replica had meanwhile."""

    seconds: float
    per_replica: float


class Flow:
    """The last ten minutes of one deployment, one sample per look."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._samples: list[_Seen] = []
        self._last: Observation | None = None
        self._counts: deque[float] = deque(maxlen=int(KEEP_S / 2 / BIN_S))  # arrivals per bin
        self._bin_from = (0.0, 0.0)  # (time, arrived) at the start of the bin that is being filled

    def add(self, seen: Observation) -> None:
        """Take one look at the deployment. Looks come in the order of time; a counter that falls counts as still."""
        last, before = self._last, self._samples[-1] if self._samples else _Seen(seen.now_s, 0.0, 0.0, 0.0, 0.0)
        self._last = seen
        if last is None:
            self._append(before)
            self._bin_from = seen.now_s, before.arrived
            return
        arrived = max(0.0, seen.arrived - last.arrived)
        ended = max(0.0, arrived - (seen.open - last.open))
        begun = max(0.0, ended + seen.running - last.running)
        half_s = max(0.0, seen.now_s - last.now_s) / 2
        busy = before.busy + (seen.running + last.running) * half_s
        ready = before.ready + (seen.ready + last.ready) * half_s
        self._append(_Seen(seen.now_s, before.arrived + arrived, before.served + (ended + begun) / 2, busy, ready))
        self._fill_bin()

    @property
    def age_s(self) -> float:
        """Seconds between the first look that is remembered and the last one."""
        return self._times[-1] - self._times[0] if self._times else 0.0

    def arrivals_per_s(self, service_s: float = 0.0) -> float:
        """Return the present arrival rate: that of the last minute, unless it has changed since in a way that is no chance.

        Of requests that take longer than a minute, that of as long as one takes: a minute sees too few of them.
        """
        if not self._samples:
            return 0.0
        window_s = min(max(MINUTE_S, service_s), KEEP_S)
        rate = self._count(window_s) / max(self._span_s(window_s), SHORT_S[-1])
        dispersion = self.dispersion()
        for short_s in SHORT_S:  # the shortest has the last word
            low, high = self._range(short_s, dispersion)
            rate = max(low, min(rate, high))
        return rate

    def running(self, window_s: float) -> float:
        """Return the mean of the requests in service over the last seconds."""
        newest = self._samples[-1]
        older = self._at(newest.at_s - window_s)
        return (newest.busy - older.busy) / (newest.at_s - older.at_s) if newest.at_s > older.at_s else 0.0

    def growth_per_s2(self) -> float:
        """Return by how much the arrival rate grows each second. A step is no growth: it is over when it is seen."""
        if self.age_s < RAMP_S * RAMP_STRETCHES:
            return 0.0
        now_s = self._times[-1]
        marks = [self._at(now_s - RAMP_S * i).arrived for i in range(RAMP_STRETCHES + 1)]
        rates = [(newer - older) / RAMP_S for newer, older in pairwise(marks)]
        return max(0.0, min(newer - older for newer, older in pairwise(rates)) / RAMP_S)

    def service(self) -> Service | None:
        """Return how long a request keeps a slot, by Little's law; None while too few have been served.

        Those that began and those that ended count half each, so that a sudden rise does not look like slow requests.
        """
        if not self._samples:
            return None
        newest = self._samples[-1]
        for window_s in SERVICE_S:
            older = self._at(newest.at_s - window_s)
            if (served := newest.served - older.served) >= MIN_SERVED:
                busy, ready = newest.busy - older.busy, newest.ready - older.ready
                return Service(busy / served, busy / ready if ready else 0.0)
        return None

    def dispersion(self) -> float:
        """Return the variance of arrivals per bin over their mean: 1 for Poisson arrivals, more when they come in bursts.

        Read from the differences of neighbouring bins, the largest tenth left out, so that neither a rate that drifts nor one
        that has changed at a stroke looks like bursts. At least 1.
        """
        counts = list(self._counts)
        total = sum(counts)
        if len(counts) < MIN_BINS or total < MIN_ARRIVALS:
            return 1.0
        squares = sorted((b - a) ** 2 for a, b in pairwise(counts))
        kept = squares[: -max(2, len(squares) // 10)]  # a step falls into two bins as a rule
        variance = sum(kept) / len(kept) / 2 * TRIMMED
        return min(MOST_DISPERSION, max(1.0, variance * len(counts) / total))

    def _range(self, window_s: float, dispersion: float) -> tuple[float, float]:
        """Return the rates between which that of the last seconds lies, chance left out."""
        count = self._count(window_s)
        # What was seen of a shorter time than the window says little yet, so the window counts as its full length.
        span_s = max(self._span_s(window_s), SHORT_S[-1])
        chance = SURE * math.sqrt(count * dispersion)
        is_whole = self._span_s(window_s) >= window_s
        high = (count + chance + SURE**2 * math.sqrt(dispersion)) / span_s if is_whole else math.inf
        return max(0.0, count - chance) / span_s, high

    def _count(self, window_s: float) -> float:
        newest = self._samples[-1]
        return newest.arrived - self._at(newest.at_s - window_s).arrived

    def _span_s(self, window_s: float) -> float:
        newest = self._samples[-1]
        return newest.at_s - self._at(newest.at_s - window_s).at_s

    def _at(self, time_s: float) -> _Seen:
        """Return the newest sample that is no newer than a time, or the oldest there is."""
        return self._samples[max(0, bisect_right(self._times, time_s) - 1)]

    def _append(self, sample: _Seen) -> None:
        self._times.append(sample.at_s)
        self._samples.append(sample)
        if self._times[0] < sample.at_s - 2 * KEEP_S:  # seldom, so that most looks move nothing
            first = bisect_right(self._times, sample.at_s - KEEP_S) - 1
            del self._times[:first], self._samples[:first]

    def _fill_bin(self) -> None:
        newest = self._samples[-1]
        since_s, arrived = self._bin_from
        if newest.at_s - since_s >= BIN_S:
            self._counts.append((newest.arrived - arrived) * BIN_S / (newest.at_s - since_s))
            self._bin_from = newest.at_s, newest.arrived
