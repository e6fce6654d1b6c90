"""Traffic table: which variant owns a conversation, by contiguous ranges of hash buckets."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from pydantic import Field, model_validator

from serve_app.config import Config, Name, PublicName

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


def arrange(names: Sequence[str]) -> tuple[str, ...]:
    """Return in which order variants own the buckets: the first declared lies between the others.

    With up to three, one of the others then grows at the first one's expense and moves nobody else's conversations; of
    more, an outer one that grows shifts its inner neighbour. ``a | b``, ``c | a | b``, ``e c | a | b d``.
    """
    return (*reversed(names[2::2]), *names[:1], *names[1::2])


class Share(Config):
    """A variant's part of the traffic."""

    variant: Name = Field(description="Name of the variant, or of an adapter's or a pipeline's version.")
    weight: int = Field(ge=0, le=100, description="Percent of conversations.")
    is_withdrawn: bool = Field(False, description="Taken out for a fault: what waits there for its first byte goes elsewhere.")


class Split(Config):
    """How the traffic of one model, adapter or pipeline is shared."""

    name: PublicName = Field(description="The model, adapter (`MODEL:ADAPTER`) or pipeline.")
    shares: tuple[Share, ...] = Field(min_length=1, description="Shares in the declared order.")
    baseline: Name = Field(description="The variant that stands in for the others.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        names = [share.variant for share in self.shares]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.name}: variant names must be unique, got {names}")
        if self.baseline not in names:
            raise ValueError(f"{self.name}: baseline {self.baseline!r} is none of {names}")
        if (total := sum(share.weight for share in self.shares)) != 100:
            raise ValueError(f"{self.name}: weights must sum to 100, got {total}")
        return self

    @cached_property
    def ranges(self) -> tuple[BucketRange, ...]:
        """Who owns which buckets."""
        weights = self.weights
        return ranges([(name, weights[name]) for name in arrange(tuple(weights))])

    @cached_property
    def weights(self) -> Mapping[str, int]:
        """Weight by variant, in the declared order."""
        return {share.variant: share.weight for share in self.shares}

    @cached_property
    def withdrawn(self) -> frozenset[str]:
        """Variants that were taken out."""
        return frozenset(share.variant for share in self.shares if share.is_withdrawn)


class TrafficTable(Config):
    """All splits in force; a higher version is newer, equal digests split alike."""

    version: int = Field(0, ge=0, description="Grows with every change.")
    splits: tuple[Split, ...] = Field((), description="Splits by name, in no particular order.")

    @cached_property
    def by_name(self) -> Mapping[str, Split]:
        """The splits by their names."""
        return {split.name: split for split in self.splits}

    @cached_property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 over names and shares, whatever the order of the splits."""
        said = sorted([split.name, [[s.variant, s.weight, s.is_withdrawn] for s in split.shares]] for split in self.splits)
        return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()[:16]
