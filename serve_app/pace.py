"""Pace: how fast the places of a variant go round, measured while requests wait for them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW_S = 5.0  # what is measured over, where that holds enough to go by: a change of capacity shows within it
ENOUGH = 8  # places; a slower pace is measured over as long as these took
KEEP_S = 60.0  # what is older says nothing
SLOT_S = 0.5
LEAST_BUSY_S = 1.0  # before that, chance has more to say than the pace
STALL = 10  # places that should have come free by the pace so far, in the time that the next one took
LEAST_SHARE = 0.01  # of the pace: higher priorities never leave less to a lower one, or its wait would have no number


@dataclass(slots=True)
class _Slot:
    began_s: float
    turned: int  # places that had gone round by then
    busy_s: float = 0.0  # while somebody waited
    handed: int = 0
    joined: Counter[int] = field(default_factory=Counter)  # by priority


class Pace:
    """Counts places that were given back and handed on to one who waited. Time in which nobody waits does not count.

    A variant whose requests all began together gives nothing back at first, and then all at once. So what is measured begins
    when as many places have gone round as there are, or after ``KEEP_S`` of waiting.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slots: deque[_Slot] = deque()
        self._counted_to_s: float | None = None  # None while nobody waits
        self._handed_s = 0.0  # the last place was handed on, or waiting began
        self._turned = 0
        self._busy_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits."""
        return self._counted_to_s is None

    def join(self, priority: int) -> None:
        """Count one who begins to wait."""
        slot = self._slot()
        if self._counted_to_s is None:
            self._counted_to_s = self._handed_s = self._clock()
        slot.joined[priority] += 1

    def hand_on(self) -> None:
        """Count a place that came free and went to one who waited."""
        slot = self._slot()
        now_s = self._clock()
        if self._was_stalled(now_s - self._handed_s):
            self._slots.clear()  # what stood still goes on: the time without a place says nothing about the next one
            slot = self._slot()
        self._handed_s = now_s
        slot.handed += 1
        self._turned += 1

    def rest(self) -> None:
        """Stop the time: nobody waits any more."""
        self._slot()
        self._counted_to_s = None

    def restart(self) -> None:
        """Forget what was measured: there are no places, or the first of them are new."""
        self._slots.clear()
        self._turned, self._busy_s = 0, 0.0
        if self._counted_to_s is not None:
            self._counted_to_s = self._handed_s = self._clock()

    def per_s(self, priority: int, *, places: int) -> float | None:
        """Return how many places a second come to a priority, after what higher ones take; None while nobody can know.

        Args:
            priority: of the one who waits.
            places: how many are taken now.
        """
        self._slot()
        least_turned = places if self._busy_s < KEEP_S else 0
        busy_s, handed, higher = 0.0, 0, 0
        for slot in reversed(self._slots):
            if slot.turned < least_turned:
                break
            busy_s += slot.busy_s
            handed += slot.handed
            higher += sum(count for other, count in slot.joined.items() if other > priority)
            if busy_s >= WINDOW_S and handed >= ENOUGH:
                break
        if not handed or busy_s < LEAST_BUSY_S:
            return None
        return max(handed - higher, handed * LEAST_SHARE) / busy_s

    def _slot(self) -> _Slot:
        """Count the time until now, and return the slot that now is in."""
        now_s = self._clock()
        slots = self._slots
        while slots and now_s - slots[0].began_s > KEEP_S:
            slots.popleft()
        if not slots and self._counted_to_s is None:
            self._turned, self._busy_s = 0, 0.0  # it was long ago, and replicas may be others
        if not slots or now_s - slots[-1].began_s >= SLOT_S:
            slots.append(_Slot(now_s, self._turned))
        if self._counted_to_s is not None:  # a long time belongs to the place that ended it
            slots[-1].busy_s += now_s - self._counted_to_s
            self._busy_s += now_s - self._counted_to_s
            self._counted_to_s = now_s
        return slots[-1]

    def _was_stalled(self, gap_s: float) -> bool:
        before_s = sum(slot.busy_s for slot in self._slots) - gap_s
        handed = sum(slot.handed for slot in self._slots)
        return gap_s > WINDOW_S and handed * gap_s > STALL * max(before_s, SLOT_S)
