"""Reciprocal rank fusion: one ranking out of several whose scores cannot be compared."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

# Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning methods",
# SIGIR 2009: 60 was fixed in a pilot study there and has been the common default since.
RANK_CONSTANT = 60


def fuse(rankings: Sequence[Sequence[Key]], k: int = RANK_CONSTANT) -> list[tuple[Key, float]]:
    """Return every item once with the sum of ``1 / (k + rank)`` over the rankings that have it, best first.

    Ranks start at 1; an item that a ranking repeats counts at its best rank. Equal scores keep the order in which the
    items are first met (ranking by ranking), so the answer is deterministic.

    Raises:
        ValueError: ``k`` is not positive.
    """
    if k <= 0:
        raise ValueError(f"the rank constant must be positive, got {k}")
    scores: dict[Key, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(dict.fromkeys(ranking), start=1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (k + rank)
    return sorted(scores.items(), key=lambda scored: scored[1], reverse=True)
