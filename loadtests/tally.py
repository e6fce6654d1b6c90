"""Tally: what a run has counted. Workers send theirs once a second, and the sum is the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from loadtests.histogram import Histogram
from serve_app.rollout.histogram import Histogram as RolloutHistogram
from serve_app.rollout.telemetry import Outcome as RolloutOutcome
from serve_app.rollout.telemetry import VariantStats

T = TypeVar("T")
TIMES = ("ttft", "itl", "gap", "longest_gap", "e2e", "late")
MOST_MESSAGES = 20


@dataclass(slots=True)
class Cell:
    """Counts of one part of the mix, or of one level of the load.

    ``times`` has, in seconds: ttft; itl, the mean of a stream's gaps; gap, every gap; longest_gap, one a stream; e2e; late, how
    long after its intended time a request was sent.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(
        default_factory=Counter
    )  # streams, tokens, prompt_tokens, pieces, coalesced, limited, citations
    times: dict[str, Histogram] = field(default_factory=lambda: {name: Histogram() for name in TIMES})

    def say(self, message: str) -> None:
        """Count what went wrong, in words; only so many different ones are kept."""
        if message in self.messages or len(self.messages) < MOST_MESSAGES:
            self.messages[message] += 1

    def merge(self, other: Cell) -> None:
        """Add what another has counted."""
        self.outcomes.update(other.outcomes)
        self.statuses.update(other.statuses)
        for message, count in other.messages.items():
            if message in self.messages or len(self.messages) < MOST_MESSAGES:
                self.messages[message] += count
        self.totals.update(other.totals)
        for name, times in self.times.items():
            times.merge(other.times[name])

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` takes."""
        counters = {name: dict(getattr(self, name)) for name in ("outcomes", "statuses", "messages", "totals")}
        return {**counters, "times": {name: times.to_json() for name, times in self.times.items()}}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Return the cell of a document."""
        counters = {name: Counter(document[name]) for name in ("outcomes", "statuses", "messages", "totals")}
        return cls(**counters, times={name: Histogram.from_json(document["times"][name]) for name in TIMES})


@dataclass(slots=True)
class Slot:
    """What happened in one interval of time: arrivals by their intended time, everything else when it happened."""

    arrivals: int = 0
    ok: int = 0
    failed: int = 0
    tokens: int = 0
    ttft: Histogram = field(default_factory=Histogram)  # of requests that were to begin in it

    def merge(self, other: Slot) -> None:
        """Add what another has counted."""
        self.arrivals += other.arrivals
        self.ok += other.ok
        self.failed += other.failed
        self.tokens += other.tokens
        self.ttft.merge(other.ttft)

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` takes."""
        return {
            "arrivals": self.arrivals,
            "ok": self.ok,
            "failed": self.failed,
            "tokens": self.tokens,
            "ttft": self.ttft.to_json(),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Return the slot of a document."""
        return cls(**{**document, "ttft": Histogram.from_json(document["ttft"])})


@dataclass(slots=True)
class Share:
    """What one variant did."""

    firsts: int = 0  # conversations that it began
    flips: int = 0  # turns that another variant had begun
    stats: VariantStats = field(default_factory=VariantStats)  # as the rollouts' gates read them

    def merge(self, other: Share) -> None:
        """Add what another has counted."""
        self.firsts += other.firsts
        self.flips += other.flips
        self.stats.merge(other.stats)

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` takes."""
        stats = self.stats
        times = {name: getattr(stats, name).pairs() for name in ("ttft", "itl", "e2e")}
        return {"firsts": self.firsts, "flips": self.flips, "outcomes": dict(stats.outcomes), "tokens": stats.tokens, **times}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Return the share of a document."""
        times = {name: RolloutHistogram((int(b), int(c)) for b, c in document[name]) for name in ("ttft", "itl", "e2e")}
        outcomes = Counter({RolloutOutcome(name): count for name, count in document["outcomes"].items()})
        stats = VariantStats(
            outcomes=outcomes, tokens=document["tokens"], ttft=times["ttft"], itl=times["itl"], e2e=times["e2e"]
        )
        return cls(document["firsts"], document["flips"], stats)


@dataclass(slots=True)
class Tally:
    """All that was counted, by part of the mix, by stage of the load, by time and by variant."""

    entries: dict[str, Cell] = field(default_factory=dict)
    stages: dict[int, Cell] = field(default_factory=dict)
    slots: dict[int, Slot] = field(default_factory=dict)
    shares: dict[tuple[str, str], Share] = field(default_factory=dict)
    lag: Histogram = field(default_factory=Histogram)  # how late the workers' own event loops were
    warmup: int = 0  # requests that were not counted

    def merge(self, other: Tally) -> None:
        """Add what another has counted."""
        _merge(self.entries, other.entries, Cell)
        _merge(self.stages, other.stages, Cell)
        _merge(self.slots, other.slots, Slot)
        _merge(self.shares, other.shares, Share)
        self.lag.merge(other.lag)
        self.warmup += other.warmup

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` takes."""
        return {
            "entries": {label: cell.to_json() for label, cell in self.entries.items()},
            "stages": [[number, cell.to_json()] for number, cell in sorted(self.stages.items())],
            "slots": [[number, slot.to_json()] for number, slot in sorted(self.slots.items())],
            "shares": [[*key, share.to_json()] for key, share in sorted(self.shares.items())],
            "lag": self.lag.to_json(),
            "warmup": self.warmup,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Return the tally of a document."""
        return cls(
            entries={label: Cell.from_json(cell) for label, cell in document["entries"].items()},
            stages={number: Cell.from_json(cell) for number, cell in document["stages"]},
            slots={number: Slot.from_json(slot) for number, slot in document["slots"]},
            shares={(model, variant): Share.from_json(share) for model, variant, share in document["shares"]},
            lag=Histogram.from_json(document["lag"]),
            warmup=document["warmup"],
        )


K = TypeVar("K", int, str, tuple[str, str])


def _merge(mine: dict[K, T], theirs: dict[K, T], make: Callable[[], T]) -> None:
    for key, value in theirs.items():
        if key not in mine:
            mine[key] = make()
        mine[key].merge(value)  # type: ignore[attr-defined]  # every value here has it
