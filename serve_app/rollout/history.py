"""History: every decision on a rollout, with the numbers that it was made by."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, JsonValue

from serve_app.config import Config
from serve_app.rollout.plan import Phase, Progress

MOST = 200  # kept of one model or pipeline


class Decision(Config):
    """One decision."""

    at_s: float = Field(description="Seconds since the epoch.")
    name: str = Field(description="The model or pipeline.")
    action: str = Field(description="What was done: started, advanced, rolled_back, ...")
    phase: Phase = Field(description="Where the rollout stood then.")
    step: int = Field(description="Index of its step then; -1 before the first.")
    weights: dict[str, int] = Field(description="Weights in force from then on.")
    before: dict[str, int] = Field(description="Weights in force until then.")
    reason: str = Field(description="Why.")
    readings: tuple[dict[str, JsonValue], ...] = Field((), description="What the gates read.")


def decision(
    action: str, progress: Progress, *, before: Mapping[str, int], at_s: float, readings: Iterable[Mapping[str, Any]] = ()
) -> Decision:
    """Return the record of what has just become of a rollout."""
    return Decision(
        at_s=at_s,
        name=progress.name,
        action=action,
        phase=progress.phase,
        step=progress.step,
        weights={share.variant: share.weight for share in progress.shares},
        before=dict(before),
        reason=progress.reason,
        readings=tuple(dict(reading) for reading in readings),
    )


class History:
    """The last ``MOST`` decisions of each model or pipeline."""

    def __init__(self, decisions: Iterable[Decision] = ()) -> None:
        self._by_name: dict[str, deque[Decision]] = {}
        self._actions: dict[str, Counter[str]] = {}
        self.count = 0
        for each in decisions:
            self.add(each)

    def add(self, made: Decision) -> None:
        """Keep a decision."""
        self._by_name.setdefault(made.name, deque(maxlen=MOST)).append(made)
        self._actions.setdefault(made.name, Counter())[made.action] += 1
        self.count += 1

    def of(self, name: str) -> list[Decision]:
        """Return the decisions on one, oldest first."""
        return list(self._by_name.get(name, ()))

    def actions(self, name: str) -> Counter[str]:
        """Return how many decisions of each kind there were, those included that are no longer kept."""
        return self._actions.get(name, Counter())

    def all(self) -> list[Decision]:
        """Return all of them, oldest first."""
        return sorted((each for kept in self._by_name.values() for each in kept), key=lambda each: each.at_s)
