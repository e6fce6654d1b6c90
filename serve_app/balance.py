"""Balance: by which rule a replica is chosen, and the draw that decides between equals."""

from __future__ import annotations

from typing import NamedTuple

from serve_app.config import ReplicaChoice

_WORD = 0xFFFFFFFFFFFFFFFF


class Balance(NamedTuple):
    """How a replica is chosen, and how far over the mean load a prefix may lead."""

    choice: ReplicaChoice = "prefix"
    factor: float = 1.25


BALANCE = Balance()


def draw(number: int) -> int:
    """Return a number that looks random: SplitMix64's finalizer, one-to-one and without a state."""
    number = number * 0x9E3779B97F4A7C15 & _WORD
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _WORD
    return number ^ number >> 31
