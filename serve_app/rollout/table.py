"""Traffic table: which variant owns a conversation, by contiguous ranges of hash buckets."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class BucketRange:
    """Buckets ``start <= b < stop`` belong to ``variant``."""

    variant: str
    start: int
    stop: int

    def __contains__(self, bucket: int) -> bool:
        return self.start <= bucket < self.stop


def ranges(weights: Sequence[tuple[str, int]]) -> tuple[BucketRange, ...]:
    """Return the bucket ranges of variants with integer weights that sum to 100, in the order given.

    Raises:
        ValueError: a weight is negative, or the weights do not sum to 100.
    """
    if any(weight < 0 for _, weight in weights) or sum(weight for _, weight in weights) != 100:
        raise ValueError(f"weights must be 0 or more and sum to 100, got {dict(weights)}")
    found, start = [], 0
    for variant, weight in weights:
        stop = start + weight * BUCKETS // 100
        found.append(BucketRange(variant, start, stop))
        start = stop
    return tuple(found)


def bucket_of(key: str) -> int:
    """Return the bucket of an affinity key: CRC-32 (ISO 3309) of its UTF-8 bytes modulo 10,000.

    HAProxy's ``crc32`` converter computes the same number, so a native edge can split alike.
    """
    # JSON may hold half a surrogate pair, which strict UTF-8 refuses.
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % BUCKETS


def pick(table: Sequence[BucketRange], key: str) -> str:
    """Return the variant that owns this conversation; at fixed weights the answer never changes."""
    bucket = bucket_of(key)
    return next(r.variant for r in table if bucket in r)
