"""Overtaken: requests that wait at a replica while later ones are answered. It may have forgotten them, or answer nothing.

An engine with continuous batching (Yu et al., *Orca*, OSDI 2022) begins requests about in the order in which they came, and
gives each of those that it runs a token in every step. So once dozens of later ones, with prompts as long, have had as many
tokens as a request may have at most, the queue hardly explains why that one still waits. A fixed limit would be too short for
one prompt and too long for the next.

It stays a guess: engines may order otherwise, and other Routers' requests are not seen here. So what is overtaken is not taken
back, but sent to a second replica as well, as a hedged request is.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from serve_app.attempts import Attempt
from serve_app.lease import Lease
from serve_app.rollout.telemetry import Outcome, VariantKey
from serve_app.upstream import UpstreamRequest
from serve_app.usage import told_usage

LEAST_WAIT_S = 10.0
BY_SAME = 32  # later requests that the same replica has answered
BY_OTHERS = 64  # later ones that the variant's replicas have, while this one answers few, or none
BY_FEW = 4  # later ones of the same replica beside those: one that has many forgotten requests gets few new ones
AS_LONG = 0.5  # of a prompt: shorter ones may overtake it
LOOK_EVERY_S = 1.0
MOST_LOOKED_AT = 16  # of a replica's streams, and of its whole answers, at a time, in turn
MOST_LOOKS = 128  # at a variant's requests at a time: streams stand still meanwhile
MOST_AT_ONCE = 8  # of a variant's requests: a second look is soon, and the budget of retries is for all
FORGET_S = 60.0  # after this long without a request a variant's, or replica's, marks are dropped
GENERATE = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")  # what queues in an engine
CUT = ("length", "max_tokens", "max_output_tokens")  # why an answer ended that has all the tokens that it may have


def _marks(by: int) -> deque[tuple[int, int, int]]:
    # Many more than have to overtake: of the prompts as long as one that waits there may be few.
    return deque(maxlen=8 * by)


@dataclass(slots=True)
class _Marks:
    """What a replica, or a variant, has answered lately: numbers and sizes of requests, and how many tokens they had."""

    begun: deque[tuple[int, int, int]] = field(default_factory=lambda: _marks(BY_SAME))
    ended: deque[tuple[int, int, int]] = field(default_factory=lambda: _marks(BY_SAME))
    last_s: float = 0.0

    def passed(self, wait: _Wait, *, most: int) -> int:
        """Return how many of them came later than a request, are about as long and have had as many tokens as it can have."""
        least, found = wait.size * AS_LONG, 0
        for number, size, tokens in reversed(self.begun if wait.is_stream else self.ended):
            found += number > wait.number and size >= least and tokens >= wait.tokens
            if found == most:
                break
        return found


def _of_variant() -> _Marks:
    return _Marks(_marks(BY_OTHERS), _marks(BY_OTHERS))


@dataclass(eq=False, slots=True)
class _Wait:
    """A request that waits for its first byte, or for its whole answer."""

    number: int
    size: int  # bytes of the request
    is_stream: bool
    tokens: int  # that it waits for at most
    sent_s: float
    lease: Lease
    rescue: Callable[[], bool]


@dataclass(slots=True)
class _Replica:
    marks: _Marks = field(default_factory=_Marks)
    streams: dict[_Wait, None] = field(default_factory=dict)  # in the order in which they came
    wholes: dict[_Wait, None] = field(default_factory=dict)  # the same: they wait longer, and must not hide streams
    used_s: float = 0.0


@dataclass(slots=True)
class _Variant:
    marks: _Marks = field(default_factory=_of_variant)
    replicas: dict[str, _Replica] = field(default_factory=dict)


class Overtaken:
    """Watches the requests of one Router, on its event loop."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = count(1)
        self._variants: dict[VariantKey, _Variant] = {}
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def watch(
        self, lease: Lease, attempt: Attempt, request: UpstreamRequest, *, body: Mapping[str, Any], rescue: Callable[[], bool]
    ) -> Iterator[None]:
        """Watch a request until its answer begins, which is when the block ends without an error.

        Args:
            lease: its place at the replica.
            attempt: reads what it had in the end; its ``on_end`` is set before.
            request: what the replica gets. Requests that queue in no engine are not watched, nor are those of adapters, which
                may have to be loaded.
            body: of the request. A whole answer that may become as long as it likes is not watched either.
            rescue: sends the request to a second replica; returns whether it did. It is called again while it does not.
        """
        if request.adapter is not None or request.path.partition("?")[0] not in GENERATE:
            yield
            return
        variant = self._variants.setdefault(attempt.key, _Variant())
        replica = variant.replicas.setdefault(lease.replica_id, _Replica())
        most = most_tokens(body)
        needs = 1 if attempt.is_stream else most
        wait = _Wait(next(self._numbers), len(request.body), attempt.is_stream, needs or 0, self._clock(), lease, rescue)
        replica.used_s = wait.sent_s
        attempt.on_end = _marking(attempt, wait, (replica.marks, variant.marks), most=most if _has_one_choice(body) else None)
        waits = replica.streams if wait.is_stream else replica.wholes
        if needs is not None:
            waits[wait] = None
        self._look_later()
        try:
            yield
        finally:
            waits.pop(wait, None)
        for marks in (replica.marks, variant.marks):
            marks.begun.append((wait.number, wait.size, 1))
            marks.last_s = self._clock()

    def look(self) -> None:
        """Have those rescued that are overtaken now, and forget whom nobody asks any more."""
        now_s = self._clock()
        for key, variant in list(self._variants.items()):
            self._rescue(variant, now_s)
            for name, replica in list(variant.replicas.items()):
                if not replica.streams and not replica.wholes and now_s - replica.used_s > FORGET_S:
                    del variant.replicas[name]
            if not variant.replicas:
                del self._variants[key]

    def _rescue(self, variant: _Variant, now_s: float) -> None:
        rescues, looks = MOST_AT_ONCE, MOST_LOOKS
        for name in list(variant.replicas):
            if not rescues or looks <= 0:
                return
            replica = variant.replicas[name] = variant.replicas.pop(name)  # the others come first next time
            for waits in (replica.streams, replica.wholes):
                due = list(islice((wait for wait in waits if now_s - wait.sent_s >= LEAST_WAIT_S), MOST_LOOKED_AT))
                looks -= len(due)
                for wait in due:
                    is_overtaken = rescues > 0 and _is_overtaken(wait, replica.marks, variant.marks, now_s=now_s)
                    rescues -= is_overtaken
                    del waits[wait]  # once is enough
                    # Nothing overtook it, or it has no place or budget yet: others have their turn first.
                    if not (is_overtaken and wait.rescue()):
                        waits[wait] = None

    def _look_later(self) -> None:
        if self._timer is None:
            # In no request's context: the timer outlives them.
            context = contextvars.Context()
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look_again, context=context)

    def _look_again(self) -> None:
        self._timer = None
        try:
            self.look()
        finally:
            if self._variants:
                self._look_later()


def most_tokens(body: Mapping[str, Any]) -> int | None:
    """Return how many tokens a request's answer may have, as its body says; None: it does not."""
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _has_one_choice(body: Mapping[str, Any]) -> bool:
    """Whether the tokens of an answer are those of one text."""
    return body.get("n") in (None, 1) and body.get("best_of") in (None, 1) and not isinstance(body.get("prompt"), list)


def _marking(attempt: Attempt, wait: _Wait, places: tuple[_Marks, ...], *, most: int | None) -> Callable[[Outcome], None]:
    """Return an ``on_end`` that notes how many tokens an answer had; those of several texts, or without a limit, are not."""
    told, number, size = attempt.on_end, wait.number, wait.size  # not the wait: it holds the request

    def end(outcome: Outcome) -> None:
        if told is not None:
            told(outcome)
        if outcome is Outcome.OK and most is not None:
            tokens = _tokens(attempt, most)
            for marks in places:
                marks.ended.append((number, size, tokens))

    return end


def _tokens(attempt: Attempt, most: int) -> int:
    """Return how many tokens an answer had, at least."""
    if not attempt.is_stream:
        return attempt.tokens
    if (usage := told_usage(attempt.tail)) is not None:
        return usage.completion
    # Its pieces may hold several events each, and some hold no token; what was cut has all it may have, unless the context was
    # what cut it.
    is_full = attempt.finish_reason in CUT and 2 * attempt.pieces >= most
    return most if is_full else max(0, attempt.pieces - 3)


def _is_overtaken(wait: _Wait, at: _Marks, everywhere: _Marks, *, now_s: float) -> bool:
    passed = at.passed(wait, most=BY_SAME)
    if passed >= BY_SAME:
        return True
    # What its replica has forgotten counts as load there, so it may be long until that many later ones are sent to it.
    is_apart = passed >= BY_FEW or now_s - at.last_s >= LEAST_WAIT_S or wait.lease.is_suspect
    return is_apart and everywhere.passed(wait, most=BY_OTHERS) >= BY_OTHERS
