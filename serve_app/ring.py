"""HashRing: which members a key prefers, and in which order. Every process that knows the same names agrees.

Consistent hashing: a member owns many arcs of a ring of 64-bit points, so one that joins or leaves moves about its own
share of the keys and no other.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

ARCS = 64  # per member; more of them make the members' shares more even
_POINTS_PER_DIGEST = 8
_DIGEST = struct.Struct(f"<{_POINTS_PER_DIGEST}Q")
_RING_BITS = 64
_ARCS_PER_SECTOR = 32
_REBUILD_RATIO = 16  # a change of more than 1/16 of the members is cheaper to sort anew than to insert


def point_of(key: str | bytes) -> int:
    """Return where a key lies on the ring; the same in every process."""
    raw = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def _arc_ends(name: str) -> Iterator[int]:
    raw = name.encode("utf-8", "surrogatepass")
    for part in range(ARCS // _POINTS_PER_DIGEST):
        yield from _DIGEST.unpack(hashlib.blake2b(raw, digest_size=_DIGEST.size, salt=part.to_bytes(1, "little")).digest())


class HashRing:
    """Members, which are numbers, by name. Changes are gathered until the next walk, so that many at once cost one sort."""

    def __init__(self) -> None:
        self._members: dict[str, int] = {}
        self._joined: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._ends = array("Q")  # sorted; the arc that ends at _ends[i] is owned by owners[i]
        self.owners = array("I")  # one per arc, clockwise; as of the last ``seek``
        self._shift = _RING_BITS
        self._starts = array("I", (0, 0))

    def __len__(self) -> int:
        """Members, not arcs."""
        return len(self._members)

    def add(self, name: str, member: int) -> None:
        """Let a member join; its name must be new here."""
        self._members[name] = self._joined[name] = member

    def remove(self, name: str) -> None:
        """Let a member leave."""
        member = self._members.pop(name)
        if self._joined.pop(name, None) is None:
            self._left[name] = member

    def seek(self, point: int) -> int:
        """Return where a walk from the point begins in ``owners``.

        The index is negative, so that one that counts on from it goes round the ring, for as many steps as there are
        owners.
        """
        if self._joined or self._left:
            self._settle()
        sector = point >> self._shift
        starts = self._starts
        return bisect_left(self._ends, point, starts[sector], starts[sector + 1]) - len(self.owners)

    def walk(self, point: int) -> Iterator[int]:
        """Yield the members clockwise from a point, each once."""
        start = self.seek(point)
        seen = set()
        for index in range(start, start + len(self.owners)):
            if (owner := self.owners[index]) not in seen:
                seen.add(owner)
                yield owner

    def _settle(self) -> None:
        joined, left = self._joined, self._left
        if (len(joined) + len(left)) * _REBUILD_RATIO > len(self._members):
            self._rebuild()
        else:
            for name, member in left.items():
                self._cut(name, member)
            for name, member in joined.items():
                self._insert(name, member)
        self._divide()
        joined.clear()
        left.clear()

    def _divide(self) -> None:
        """Note where each sector of the ring starts: a search in one takes the same few steps, however large the ring."""
        ends = self._ends
        bits = (len(ends) // _ARCS_PER_SECTOR).bit_length()
        self._shift = _RING_BITS - bits
        self._starts = array("I", (bisect_left(ends, sector << self._shift) for sector in range(1 << bits)))
        self._starts.append(len(ends))

    def _rebuild(self) -> None:
        ends: list[int] = []
        owners: list[int] = []
        for name, member in self._members.items():
            ends.extend(_arc_ends(name))
            owners.extend([member] * ARCS)
        order = sorted(range(len(ends)), key=ends.__getitem__)
        self._ends = array("Q", [ends[index] for index in order])
        self.owners = array("I", [owners[index] for index in order])

    def _insert(self, name: str, member: int) -> None:
        for end in _arc_ends(name):
            index = bisect_right(self._ends, end)
            self._ends.insert(index, end)
            self.owners.insert(index, member)

    def _cut(self, name: str, member: int) -> None:
        for end in _arc_ends(name):
            index = bisect_left(self._ends, end)
            while self.owners[index] != member:
                index += 1
            del self._ends[index], self.owners[index]
