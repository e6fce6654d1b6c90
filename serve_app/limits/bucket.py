"""Bucket: a token bucket whose content is exact at any time, and may be a debt."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_S = 60.0


@dataclass(slots=True)
class Bucket:
    """Holds at most ``capacity`` and gains that much a minute."""

    capacity: float
    level: float
    at_s: float

    @property
    def rate(self) -> float:
        """What it gains in a second."""
        return self.capacity / MINUTE_S

    def refill(self, now_s: float) -> float:
        """Bring the level up to date and return it; a clock that goes back gains nothing."""
        self.level = min(self.capacity, self.level + self.rate * max(0.0, now_s - self.at_s))
        self.at_s = max(self.at_s, now_s)
        return self.level

    def take(self, amount: float) -> None:
        """Remove an amount, into debt if need be."""
        self.level -= amount

    def put(self, amount: float) -> None:
        """Put back what was taken and not used."""
        self.level = min(self.capacity, self.level + amount)

    def resize(self, capacity: float) -> None:
        """Follow a changed limit: what was used of the old one stays used."""
        self.level = min(capacity, self.level + max(0.0, capacity - self.capacity))
        self.capacity = capacity

    def wait_s(self, amount: float) -> float:
        """Return the seconds until the level, as it was last brought up to date, is ``amount``."""
        return max(0.0, (min(amount, self.capacity) - self.level) / self.rate)
