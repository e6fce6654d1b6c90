"""Reports: what the replicas of one deployment said last, put together."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from autoscaling.signals import ARRIVED, KV_CACHE, OPEN, RUNNING, SLOTS, WAITING

STALE_S = 15.0  # a replica that has said nothing new this long is silent: its last word counts, but does not prove anything
FOUND_S = 30.0  # after the first look, replicas may be found that served before it
FORGET_S = 120.0  # after a replica has gone


class Point(Protocol):
    """One sample of a series."""

    @property
    def timestamp(self) -> float:
        """When it was taken: seconds of the replica's clock."""
        ...

    @property
    def value(self) -> float:
        """The sample."""
        ...


Raw = Mapping[str, Mapping[Any, Sequence[Point]]]  # signal -> replica -> samples, the newest last
Signals = Sequence[Mapping[Any, Sequence[Point]]]
SIGNALS = (WAITING, RUNNING, SLOTS, ARRIVED, KV_CACHE, OPEN)


@dataclass(slots=True)
class _Report:
    stamp: float
    heard_s: float  # by our own clock
    waiting: float = 0.0
    running: float = 0.0
    slots: float = 0.0
    arrived: float = 0.0
    kv_cache: float = 0.0
    is_blank: bool = False  # nothing was said yet
    is_old: bool = False  # it had served before anybody asked
    left_s: float | None = None  # since when the replica is not listed any more


@dataclass(frozen=True, slots=True)
class Sums:
    """What all replicas said together."""

    heard: int = 0  # replicas that have said something of late
    silent: int = 0  # replicas that have not
    waiting: float = 0.0
    running: float = 0.0
    slots: float = 0.0  # of one replica
    kv_cache: float = 0.0  # mean


class Reports:
    """Takes what Serve collected. A replica that misses reports keeps its last word while it is listed as running."""

    def __init__(self) -> None:
        self._reports: dict[Hashable, _Report] = {}
        self._since_s: float | None = None  # the first look
        self.arrived = 0.0  # requests that have come to any replica since the first look, those that are gone included

    def take(self, raw: Raw | None, replicas: Sequence[Hashable], *, now_s: float) -> Sums:
        """Read the newest sample of every running replica, and return the sums over them."""
        if self._since_s is None:
            self._since_s = now_s
        signals = [(raw or {}).get(name, {}) for name in SIGNALS]
        known = self._reports
        present: dict[Hashable, _Report] = {}
        for replica in replicas:
            old, series = known.get(replica), signals[0].get(replica)
            if old is None:
                # Replicas that were there before this process are found one by one: what came to them is no arrival of now.
                old = _Report(math.nan, now_s, is_blank=True, is_old=now_s - self._since_s <= FOUND_S)
            if series and series[-1].timestamp != old.stamp:
                old = self._renew(old, _read(signals, replica, stamp=series[-1].timestamp, now_s=now_s))
            old.left_s = None
            present[replica] = old
        self._reports = {**self._gone(present, now_s), **present}
        return _sums(list(present.values()), now_s)

    def _gone(self, present: Mapping[Hashable, _Report], now_s: float) -> dict[Hashable, _Report]:
        """Return who left of late: a replica that is off the list for a moment must not bring its whole count again."""
        gone = {replica: report for replica, report in self._reports.items() if replica not in present}
        for report in gone.values():
            report.left_s = now_s if report.left_s is None else report.left_s
        return {replica: report for replica, report in gone.items() if now_s - (report.left_s or 0.0) <= FORGET_S}

    def _renew(self, old: _Report, new: _Report | None) -> _Report:
        if new is None:
            return old
        if not old.is_blank:
            self.arrived += max(0.0, new.arrived - old.arrived)
        elif not old.is_old:
            self.arrived += new.arrived
        return new


def _sums(reports: Sequence[_Report], now_s: float) -> Sums:
    stale_s = now_s - STALE_S
    return Sums(
        heard=sum(report.heard_s >= stale_s and not report.is_blank for report in reports),
        silent=sum(report.heard_s < stale_s for report in reports),
        waiting=sum(report.waiting for report in reports),
        running=sum(report.running for report in reports),
        slots=max((report.slots for report in reports), default=0.0),
        kv_cache=sum(report.kv_cache for report in reports) / len(reports) if reports else 0.0,
    )


def _read(signals: Signals, replica: Hashable, *, stamp: float, now_s: float) -> _Report | None:
    """Return a replica's newest report, or None when it holds anything that is no number."""
    values = [float(series[-1].value) if (series := each.get(replica)) else 0.0 for each in signals]
    if not all(map(math.isfinite, values)) or min(values) < 0:
        return None
    waiting, running, slots, arrived, kv_cache, opened = values
    # A request that the engine does not count yet, or no longer, is open on the replica's port.
    return _Report(stamp, now_s, waiting, max(running, opened - waiting), slots, arrived, kv_cache)
