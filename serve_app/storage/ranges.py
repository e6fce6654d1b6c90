"""Which bytes one GET asks for."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from dataclasses import dataclass

from serve_app.storage.connection import Tuning


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file, from a block's start to another's end."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self.end - self.start


def block_count(size: int, block_bytes: int) -> int:
    """Return how many blocks a file has; an empty one has none."""
    return math.ceil(size / block_bytes)


def range_bytes(total_bytes: int, tuning: Tuning) -> int:
    """Return how much one GET may ask for: large, and still enough GETs for every thread to have one."""
    share = math.ceil(total_bytes / tuning.threads)
    return max(tuning.least_range_bytes, min(tuning.most_range_bytes, share))


def missing_spans(size: int, done: Container[int], *, block_bytes: int, most_bytes: int) -> Iterator[Span]:
    """Yield what is left of a file, in spans of about equal size that keep to ``most_bytes`` (or one block)."""
    first: int | None = None
    count = block_count(size, block_bytes)
    for block in range(count + 1):
        is_missing = block < count and block not in done
        if is_missing and first is None:
            first = block
        elif not is_missing and first is not None:
            yield from _cut(Span(first * block_bytes, min(block * block_bytes, size)), block_bytes, most_bytes)
            first = None


def _cut(span: Span, block_bytes: int, most_bytes: int) -> Iterator[Span]:
    pieces = math.ceil(span.size / most_bytes)
    step = math.ceil(span.size / pieces / block_bytes) * block_bytes
    for start in range(span.start, span.end, step):
        yield Span(start, min(start + step, span.end))
