"""Gathering: what all Routers report, by variant and second."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from serve_app.rollout.telemetry import RouterReport, ShadowStats, VariantKey, VariantStats, Waiting

LONG_S = 60.0  # the window that a baseline's quantiles are read from
AWAY_S = 10.0  # a Router that says nothing this long is gone
FORGET_S = 600.0  # but it may come back with a report that was taken long ago


@dataclass(slots=True)
class _Router:
    seq: int
    seen_s: float
    table_version: int
    waiting: dict[VariantKey, Waiting]
    held: dict[VariantKey, int]


@dataclass(slots=True)
class _Series:
    """One variant's counts: all of them, those of the last minute by tick, and those since the last tick."""

    total: VariantStats = field(default_factory=VariantStats)
    ticks: deque[tuple[float, VariantStats]] = field(default_factory=deque)
    fresh: VariantStats = field(default_factory=VariantStats)


class Gathering:
    """Reports arrive in any order and may be repeated; each counts once. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._routers: dict[str, _Router] = {}
        self._away: dict[str, _Router] = {}
        self._series: dict[VariantKey, _Series] = {}
        self.shadows: dict[VariantKey, ShadowStats] = {}

    def take(self, report: RouterReport, *, now_s: float) -> None:
        """Add a report; one that was taken before only says that its Router is there."""
        known = self._routers.get(report.router) or self._away.pop(report.router, None)
        is_new = known is None or report.seq > known.seq
        seq = report.seq if known is None else max(known.seq, report.seq)
        self._routers[report.router] = _Router(
            seq, now_s, report.table_version, waiting=dict(report.waiting), held=dict(report.held)
        )
        if not is_new:
            return
        for key, stats in report.stats.items():
            self._series.setdefault(key, _Series()).fresh.merge(stats)
        for key, shadow in report.shadows.items():
            self.shadows.setdefault(key, ShadowStats()).merge(shadow)

    def tick(self, *, now_s: float) -> None:
        """End the current tick: what came since the last one is what ``latest`` returns from now on."""
        for series in self._series.values():
            series.ticks.append((now_s, series.fresh))
            series.total.merge(series.fresh)
            series.fresh = VariantStats()
            while series.ticks and series.ticks[0][0] < now_s - LONG_S:
                series.ticks.popleft()
        self._away |= {name: r for name, r in self._routers.items() if now_s - r.seen_s > AWAY_S}
        self._away = {name: r for name, r in self._away.items() if now_s - r.seen_s <= FORGET_S}
        self._routers = {name: r for name, r in self._routers.items() if name not in self._away}

    def latest(self, key: VariantKey) -> VariantStats:
        """Return what the last tick brought."""
        series = self._series.get(key)
        return series.ticks[-1][1] if series is not None and series.ticks else VariantStats()

    def window(self, key: VariantKey, *, last_s: float, now_s: float) -> VariantStats:
        """Return the sum of the ticks of the last seconds, at most ``LONG_S`` of them."""
        series = self._series.get(key)
        ticks = series.ticks if series is not None else ()
        return VariantStats.merged(stats for at_s, stats in ticks if at_s > now_s - last_s)

    def total(self, key: VariantKey) -> VariantStats:
        """Return all that was counted since this process began."""
        series = self._series.get(key)
        return series.total if series is not None else VariantStats()

    def waiting(self, key: VariantKey) -> Waiting:
        """Return the attempts that are open on all Routers."""
        made = Waiting()
        for router in self._routers.values():
            if (theirs := router.waiting.get(key)) is not None:
                made.merge(theirs)
        return made

    def held(self, *, now_s: float) -> Counter[VariantKey]:
        """Return the requests that wait on all Routers; those of a Router that has fallen silent have gone with it."""
        made: Counter[VariantKey] = Counter()
        for router in self._routers.values():
            if now_s - router.seen_s <= AWAY_S:  # ticks notice it too, but not before every replica could be heard
                made.update(router.held)
        return made

    def tables(self) -> dict[str, int]:
        """Return the version of the traffic table that each Router has in force."""
        return {name: router.table_version for name, router in sorted(self._routers.items())}

    def forget(self, keys: set[VariantKey]) -> None:
        """Drop what is not among these keys: variants come and go."""
        for book in (self._series, self.shadows):
            for key in [key for key in book if key not in keys]:
                del book[key]
