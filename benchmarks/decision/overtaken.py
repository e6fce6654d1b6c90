"""What watching for overtaken requests costs a Router: microseconds of CPU per request, and per look at those that wait.

    python -m benchmarks.decision.overtaken

The same attempt begins, has its stream of a few pieces and ends, unwatched and watched; a look is at as many requests as one
takes in, all of which have waited long and were not overtaken. Each number is the median over rounds that take turns, the
ratio that of each round's pair; time is the thread's CPU time.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from operator import truediv
from statistics import median
from typing import Any

from serve_app.attempts import Attempt, Attempts
from serve_app.lease import Lease
from serve_app.overtaken import LEAST_WAIT_S, MOST_LOOKED_AT, MOST_LOOKS, Overtaken
from serve_app.rollout.telemetry import Outcome
from serve_app.upstream import UpstreamRequest

ROUNDS = 31
REQUESTS = 2_000
PIECES = 32
REPLICAS = MOST_LOOKS // MOST_LOOKED_AT
KEY = ("chat", "stable")
BODY: dict[str, Any] = {"model": "chat", "stream": True, "max_tokens": PIECES}
PIECE = b'data: {"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
LAST = PIECE.replace(b"null", b'"length"') + b"data: [DONE]\n\n"
REQUEST = UpstreamRequest("POST", "/v1/chat/completions", b"{}" * 200, "request")
Watch = Callable[[Lease, Attempt], AbstractContextManager[None]]


class Router:
    """Attempts of one Router, and what watches them; its clock moves by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.attempts = Attempts(clock=self.clock)
        self.overtaken = Overtaken(clock=self.clock)

    def clock(self) -> float:
        """Return seconds."""
        return self.now_s

    def watch(self, lease: Lease, attempt: Attempt) -> AbstractContextManager[None]:
        """Watch a request that nothing overtakes."""
        return self.overtaken.watch(lease, attempt, REQUEST, body=BODY, rescue=lambda: False)

    def per_request_us(self, watch: Watch) -> float:
        """Return what one attempt costs."""
        start_s = time.thread_time()
        for _ in range(REQUESTS):
            attempt = self.attempts.begin(KEY, began_s=self.now_s, is_stream=True)
            with watch(_lease(0), attempt):
                attempt.piece(PIECE)
            for _ in range(PIECES - 2):
                attempt.piece(PIECE)
            attempt.piece(LAST)
            attempt.end(Outcome.OK)
        return (time.thread_time() - start_s) / REQUESTS * 1e6

    def per_look_us(self) -> float:
        """Return what a look costs at as many requests as one takes in, each of a replica that answers others."""
        with ExitStack() as waiting:
            for number in range(MOST_LOOKS):
                attempt = self.attempts.begin(KEY, began_s=self.now_s, is_stream=True)
                waiting.enter_context(self.watch(_lease(number % REPLICAS), attempt))
            self.now_s += LEAST_WAIT_S
            start_s = time.thread_time()
            self.overtaken.look()
            return (time.thread_time() - start_s) * 1e6


def _lease(replica: int) -> Lease:
    return Lease(f"replica-{replica}", "stable", "http://127.0.0.1:1", True, lambda: None)


async def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median of each cost, in microseconds, and of the rounds' ratios."""
    router = Router()
    plain, watched, looks = [], [], []
    for _ in range(rounds):
        plain.append(router.per_request_us(lambda *_: nullcontext()))
        watched.append(router.per_request_us(router.watch))
        looks.append(router.per_look_us())
    ratio = median(map(truediv, watched, plain))
    return {"unwatched": median(plain), "watched": median(watched), "look": median(looks), "ratio": ratio}


def main() -> None:
    """Print the figures."""
    found = asyncio.run(measure())
    sys.stdout.write(f"a request whose stream has {PIECES} pieces: {found['unwatched']:.1f} µs, ")
    sys.stdout.write(f"watched {found['watched']:.1f} ({found['ratio']:.2f} times, median of {ROUNDS} rounds)\n")
    sys.stdout.write(f"a look, once a second, at {MOST_LOOKS} requests: {found['look']:.0f} µs\n")


if __name__ == "__main__":
    main()
