"""LoadIndex: numbered seats by load. One more or one less costs O(1), and so does the least loaded.

What a decision reads lies in a few small arrays and not in one object per seat: at 2,000 seats, memory that is not in the
processor's cache would otherwise cost more than all the steps together.
"""

from __future__ import annotations

from array import array
from heapq import heappop, heappush


class LoadIndex:
    """Seats have a load; those that are open are also in the list of the equally loaded."""

    __slots__ = ("_by_load", "_free", "_heap", "_in_list", "_in_opened", "is_open", "loads", "opened")

    def __init__(self) -> None:
        # These three are for reading only.
        self.loads: list[int] = []  # by seat
        self.is_open = bytearray()  # by seat
        self.opened = array("I")  # seats, in no particular order
        self._in_opened = array("I")  # by seat: its place in that list
        self._in_list = array("I")  # by seat: its place in the list of its load
        self._by_load: dict[int, array[int]] = {}  # one that ran empty stays until its load comes up in the heap
        self._heap: list[int] = []  # loads that have a list
        self._free: list[int] = []

    def claim(self, load: int) -> int:
        """Return a seat that nobody has, not open yet."""
        if self._free:
            seat = self._free.pop()
            self.loads[seat] = load
            return seat
        self.loads.append(load)
        self.is_open.append(False)
        self._in_opened.append(0)
        self._in_list.append(0)
        return len(self.loads) - 1

    def free(self, seat: int) -> None:
        """Give a seat back that is not open."""
        self._free.append(seat)

    def open(self, seat: int) -> None:
        """Let the seat be found."""
        self.is_open[seat] = True
        self._in_opened[seat] = len(self.opened)
        self.opened.append(seat)
        self._put(seat)

    def close(self, seat: int) -> None:
        """Let it be found no more."""
        self.is_open[seat] = False
        self._pull(seat)
        last = self.opened.pop()
        if last != seat:
            place = self._in_opened[seat]
            self.opened[place] = last
            self._in_opened[last] = place

    def shift(self, seat: int, by: int) -> None:
        """Change a seat's load, whether it is open or not."""
        if self.is_open[seat]:
            self._pull(seat)
            self.loads[seat] += by
            self._put(seat)
        else:
            self.loads[seat] += by

    def least(self, number: int) -> int:
        """Return a least loaded open seat; the number decides between equals. One must be open."""
        while not (equals := self._by_load[self._heap[0]]):
            del self._by_load[heappop(self._heap)]
        return equals[number % len(equals)]

    def _put(self, seat: int) -> None:
        load = self.loads[seat]
        equals = self._by_load.get(load)
        if equals is None:
            equals = self._by_load[load] = array("I")
            heappush(self._heap, load)
        self._in_list[seat] = len(equals)
        equals.append(seat)

    def _pull(self, seat: int) -> None:
        equals = self._by_load[self.loads[seat]]
        last = equals.pop()
        if last != seat:
            place = self._in_list[seat]
            equals[place] = last
            self._in_list[last] = place
