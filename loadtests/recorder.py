"""Recorder: turns exchanges into counts, in one worker process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loadtests.exchange import Exchange
from loadtests.outcomes import ENDLESS, Outcome, RequestFailed
from loadtests.scenario import Scenario
from loadtests.shapes import stage_index, stages
from loadtests.tally import Cell, Share, Slot, Tally
from serve_app.rollout.telemetry import Outcome as RolloutOutcome

MOST_SLOTS = 180
_JUDGED = {
    Outcome.OK: RolloutOutcome.OK,
    Outcome.UNAUTHENTICATED: RolloutOutcome.REJECTED,
    Outcome.RATE_LIMITED: RolloutOutcome.REJECTED,
    Outcome.CLIENT_ERROR: RolloutOutcome.REJECTED,
    Outcome.SERVER_ERROR: RolloutOutcome.SERVER_ERROR,
    Outcome.TIMEOUT: RolloutOutcome.TIMEOUT,
    Outcome.UNFINISHED: RolloutOutcome.TIMEOUT,
    Outcome.DNS: RolloutOutcome.UNREACHABLE,
    Outcome.CONNECT: RolloutOutcome.UNREACHABLE,
    Outcome.BROKEN: RolloutOutcome.BROKEN,
    Outcome.ERROR_EVENT: RolloutOutcome.BROKEN,
}


@dataclass(frozen=True, slots=True)
class Event:
    """What Locust is told; ``name`` is a model for TTFT and ITL, else a path."""

    request_type: str
    name: str
    response_time: float  # milliseconds
    response_length: int = 0
    exception: Exception | None = None


Tell = Callable[[Event], None]


def slot_s(duration_s: float) -> float:
    """Return how long a slot of the timeline is, so that the run has whole ones."""
    return duration_s / min(MOST_SLOTS, max(1, int(duration_s)))


class Recorder:
    """Counts the exchanges of a run that began at ``begin_s`` (of `time.perf_counter`; the warm-up comes before it)."""

    def __init__(self, scenario: Scenario, begin_s: float, tell: Tell) -> None:
        self._scenario = scenario
        self._begin_s = begin_s
        self._tell = tell
        self._slot_s = slot_s(scenario.duration)
        self._stages = stages(scenario.load.shape, scenario.duration)
        self._tally = Tally()

    def take(self) -> Tally:
        """Return what was counted since this was last asked."""
        taken, self._tally = self._tally, Tally()
        return taken

    def lag(self, late_s: float) -> None:
        """Count how late this process' event loop was."""
        self._tally.lag.observe(late_s)

    def record(self, seen: Exchange) -> None:
        """Count an exchange that has ended."""
        self._tell_locust(seen)
        self._count_by_time(seen)
        at_s = seen.intended_s - self._begin_s
        if not 0 <= at_s < self._scenario.duration:
            self._tally.warmup += 1
            return
        _count(self._tally.entries.setdefault(seen.entry, Cell()), seen)
        if (number := stage_index(self._stages, at_s)) is not None:
            _count(self._tally.stages.setdefault(number, Cell()), seen)
        if seen.variant is not None:
            _share(self._tally.shares.setdefault(seen.variant, Share()), seen)

    def _tell_locust(self, seen: Exchange) -> None:
        is_ok = seen.outcome is Outcome.OK
        failure = None if is_ok else RequestFailed(seen.outcome, seen.message)
        self._tell(Event(seen.method, seen.path, 1000 * seen.duration_s, seen.received_bytes, failure))
        if (ttft_s := seen.ttft_s) is not None and seen.is_stream:
            self._tell(Event("TTFT", seen.model, 1000 * ttft_s))
        if (itl_s := seen.itl_s) is not None:
            self._tell(Event("ITL", seen.model, 1000 * itl_s))

    def _slot(self, at_s: float) -> Slot:
        return self._tally.slots.setdefault(int((at_s - self._begin_s) // self._slot_s), Slot())

    def _count_by_time(self, seen: Exchange) -> None:
        begun, ended = self._slot(seen.intended_s), self._slot(seen.ended_s)
        begun.arrivals += 1
        if seen.outcome is Outcome.OK:
            ended.ok += 1
        else:
            ended.failed += 1
        if not seen.stamps:
            ended.tokens += seen.tokens
            return
        begun.ttft.observe(seen.stamps[0] - seen.intended_s)
        places, pieces = np.unique((np.asarray(seen.stamps) - self._begin_s) // self._slot_s, return_counts=True)
        per_piece = max(1.0, seen.tokens / len(seen.stamps))  # an engine may put several tokens into an event
        for place, count in zip(places.tolist(), pieces.tolist(), strict=True):
            self._tally.slots.setdefault(int(place), Slot()).tokens += round(count * per_piece)


def _count(cell: Cell, seen: Exchange) -> None:
    cell.outcomes[seen.outcome] += 1
    if seen.status is not None:
        cell.statuses[str(seen.status)] += 1
    if seen.message:
        cell.say(f"{seen.outcome}: {seen.message}")
    cell.totals.update(
        requests=1,
        streams=int(seen.is_stream),
        tokens=seen.tokens,
        prompt_tokens=seen.prompt_tokens,
        pieces=len(seen.stamps),
        coalesced=seen.coalesced,
        limited=seen.limited,
        cited=int(seen.citations > 0),
    )
    if seen.sent_s is not None and not seen.limited:
        cell.times["late"].observe(max(0.0, seen.sent_s - seen.intended_s))
    if seen.outcome is Outcome.OK:
        cell.times["e2e"].observe(seen.duration_s)
    elif seen.outcome in ENDLESS:
        cell.times["e2e"].endless += 1
    if seen.is_stream:
        _count_stream(cell, seen)


def _count_stream(cell: Cell, seen: Exchange) -> None:
    if (ttft_s := seen.ttft_s) is not None:
        cell.times["ttft"].observe(ttft_s)
    elif seen.outcome in ENDLESS:
        cell.times["ttft"].endless += 1
    if (itl_s := seen.itl_s) is not None:
        cell.times["itl"].observe(itl_s)
        gaps = np.diff(np.asarray(seen.stamps))
        cell.times["gap"].observe_all(gaps)
        cell.times["longest_gap"].observe(float(gaps.max()))


def _share(share: Share, seen: Exchange) -> None:
    share.firsts += int(seen.is_first and seen.outcome is Outcome.OK)
    share.flips += int(seen.has_flipped)
    share.stats.outcomes[_JUDGED[seen.outcome]] += 1
    share.stats.tokens += seen.tokens
    if (ttft_s := seen.ttft_s) is not None and seen.is_stream:
        share.stats.ttft.observe(ttft_s)
    if (itl_s := seen.itl_s) is not None:
        share.stats.itl.observe(itl_s)
    if seen.outcome is Outcome.OK:
        share.stats.e2e.observe(seen.duration_s)
