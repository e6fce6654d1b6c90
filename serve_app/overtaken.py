"""Overtaken: requests that wait at a replica while later ones are answered. It has forgotten them, or answers nothing.

An engine with continuous batching (Yu et al., *Orca*, OSDI 2022) begins requests about in the order in which they came, and
gives each of those that it runs a token in every step. So once dozens of later ones have had as many tokens as a request may
ask for at most, neither the queue nor its length explains why that one still waits. How long an answer may take never has to
be known: a fixed limit would be too short for one prompt and too long for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from serve_app.attempts import Attempt
from serve_app.lease import Lease
from serve_app.rollout.telemetry import Outcome, VariantKey

LEAST_WAIT_S = 10.0  # nothing is taken back sooner: a long prompt may be overtaken by short ones for a while
BY_SAME = 32  # later requests that the same replica has answered
BY_OTHERS = 64  # later ones that the variant's replicas have, while this one has begun nothing
LOOK_EVERY_S = 1.0
MOST_LOOKED_AT = 64  # of a replica's requests at a time, the oldest first
CUT = ("length", "max_tokens")  # why an answer ended that has all the tokens that it may have
FORGET_S = 60.0  # after this long without a request a replica's marks are dropped

logger = logging.getLogger("ray.serve")


@dataclass(slots=True)
class _Marks:
    """What a replica, or a variant, has answered lately: numbers of requests, and how many tokens they had by the end."""

    begun: deque[int] = field(default_factory=lambda: deque(maxlen=2 * BY_OTHERS))
    ended: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=2 * BY_OTHERS))
    last_s: float = 0.0

    def passed(self, wait: _Wait) -> int:
        """Return how many of them came later than a request and have had as many tokens as that one can have."""
        if wait.tokens == 1:
            return sum(number > wait.number for number in self.begun)
        return sum(number > wait.number and tokens >= wait.tokens for number, tokens in self.ended)


@dataclass(eq=False, slots=True)
class _Wait:
    """A request that waits for its first byte, or for its whole answer."""

    number: int
    sent_s: float
    tokens: int  # that it waits for at most
    take_back: Callable[[], bool]
    at: _Marks


@dataclass(slots=True)
class _Variant:
    marks: _Marks = field(default_factory=_Marks)
    replicas: dict[str, _Marks] = field(default_factory=dict)
    waits: dict[str, dict[_Wait, None]] = field(default_factory=dict)  # by replica, in the order in which they came


class Overtaken:
    """Watches the requests of one Router, on its event loop, and has those taken back that are overtaken."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = count(1)
        self._variants: dict[VariantKey, _Variant] = {}
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def watch(
        self, lease: Lease, attempt: Attempt, *, body: Mapping[str, Any], take_back: Callable[[], bool]
    ) -> Iterator[None]:
        """Watch a request until its answer begins, which is when the block ends without an error.

        Args:
            lease: its place at the replica.
            attempt: counts its tokens; its ``on_end`` is set before.
            body: of the request. A whole answer that may become as long as it likes is not watched.
            take_back: ends the wait, and returns whether it did; it may want to leave the request where it is.
        """
        variant = self._variants.setdefault(attempt.key, _Variant())
        marks = variant.replicas.setdefault(lease.replica_id, _Marks())
        tokens = 1 if attempt.is_stream else most_tokens(body)
        wait = _Wait(next(self._numbers), self._clock(), tokens or 0, take_back, marks)
        attempt.on_end = self._on_end(attempt, wait, variant, body=body)
        waits = variant.waits.setdefault(lease.replica_id, {})
        if tokens is not None:
            waits[wait] = None
            self._look_later()
        try:
            yield
        finally:
            waits.pop(wait, None)
        self._begun(wait, variant)

    def look(self) -> None:
        """Have those taken back that are overtaken now."""
        now_s = self._clock()
        for key, variant in list(self._variants.items()):
            for replica_id, waits in list(variant.waits.items()):
                due = [
                    wait for wait, _ in zip(waits, range(MOST_LOOKED_AT), strict=False) if now_s - wait.sent_s >= LEAST_WAIT_S
                ]
                taken = sum(_is_overtaken(wait, variant) and wait.take_back() for wait in due)
                if taken:
                    logger.warning("%d requests are taken back from replica %s, which answers later ones", taken, replica_id)
                if not waits and now_s - variant.replicas[replica_id].last_s > FORGET_S:
                    del variant.waits[replica_id], variant.replicas[replica_id]
            if not variant.waits:
                del self._variants[key]

    def _begun(self, wait: _Wait, variant: _Variant) -> None:
        for marks in (wait.at, variant.marks):
            marks.begun.append(wait.number)
            marks.last_s = self._clock()

    def _on_end(
        self, attempt: Attempt, wait: _Wait, variant: _Variant, *, body: Mapping[str, Any]
    ) -> Callable[[Outcome], None]:
        told = attempt.on_end

        def end(outcome: Outcome) -> None:
            if told is not None:
                told(outcome)
            if outcome is Outcome.OK and body.get("n") in (None, 1):  # of several choices, each has but a part of the tokens
                tokens = (most_tokens(body) if attempt.finish_reason in CUT else None) or attempt.tokens
                for marks in (wait.at, variant.marks):
                    marks.ended.append((wait.number, tokens))

        return end

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.look()
        if any(waits for variant in self._variants.values() for waits in variant.waits.values()):
            self._look_later()


def most_tokens(body: Mapping[str, Any]) -> int | None:
    """Return how many tokens a request's answer may have, as its body says; None: it does not."""
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _is_overtaken(wait: _Wait, variant: _Variant) -> bool:
    if wait.at.passed(wait) >= BY_SAME:
        return True
    return wait.at.last_s < wait.sent_s and variant.marks.passed(wait) >= BY_OTHERS
