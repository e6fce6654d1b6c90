"""What keys and limits cost a Router: microseconds of CPU per request, and per event of a stream.

    python -m benchmarks.decision.access

The same code as in a Router, without HTTP around it: a key is found and compared among 10 and among 1,000; a request of a
limited key is admitted, by a grant held here or by an exchange with a ledger in the same process; a stream's events are
metered. Each number is the median over rounds that take turns; time is the thread's CPU time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median
from typing import Self

from serve_app.config import ApiKeyConfig
from serve_app.credentials import KeyRing, credential, hash_of, new_key
from serve_app.limits.admission import EscrowAdmission
from serve_app.limits.ledger import Ledger
from serve_app.limits.messages import Message, Reply
from serve_app.limits.permit import UNLIMITED, Permit
from serve_app.usage import metered

ROUNDS = 20
REQUESTS = 2_000
EVENTS = 2_000
MANY = 100_000_000  # a limit that is counted and never reached
Measure = Callable[[], Awaitable[float]]  # microseconds per item


class Events:
    """A stream's events as vLLM writes them."""

    def __init__(self, *, with_usage: bool) -> None:
        usage = {"prompt_tokens": 12, "total_tokens": 13, "completion_tokens": 1}
        choice = {"index": 0, "delta": {"content": " token"}, "logprobs": None, "finish_reason": None}
        chunk = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1, "model": "chat", "choices": [choice]}
        self._event = b"data: " + json.dumps({**chunk, **({"usage": usage} if with_usage else {})}).encode() + b"\n\n"
        self._left = EVENTS

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next event."""
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return self._event

    async def aclose(self) -> None:
        """Nothing is held."""


class Platform:
    """A ledger, and a Router's admission by it."""

    def __init__(self) -> None:
        self._now_s = 0.0
        ledger = Ledger(epoch="e", clock=self._clock)

        async def exchange(message: Message) -> Reply:
            return ledger.exchange(message)

        self.admission = EscrowAdmission(exchange, router="r", clock=self._clock)
        self.limited = ApiKeyConfig(
            name="load",
            hash=hash_of("x"),
            requests_per_minute=MANY,
            tokens_per_minute=MANY,
            concurrent_requests=MANY,
        )
        self.free = ApiKeyConfig(name="free", hash=hash_of("y"))

    async def start(self) -> asyncio.Task[None]:
        """Let the ledger settle, and keep up the exchange from then on."""
        await self.admission.exchange()
        self._now_s += 10.0
        await self.admission.exchange()
        return asyncio.create_task(self.admission.keep(lambda: True))

    def _clock(self) -> float:
        return self._now_s

    async def admitted_us(self, caller: ApiKeyConfig) -> float:
        """Return what admitting and releasing took."""
        start_s = time.thread_time()
        for _ in range(REQUESTS):
            (await self.admission.admit(caller)).release()
        return (time.thread_time() - start_s) / REQUESTS * 1e6


async def found_us(keys: int) -> float:
    """Return what finding and comparing a key took."""
    texts = [new_key(f"key-{i}") for i in range(keys)]
    ring = KeyRing(ApiKeyConfig(name=f"key-{i}", hash=hash_of(text)) for i, text in enumerate(texts))
    header = f"Bearer {texts[-1]}"
    start_s = time.thread_time()
    for _ in range(REQUESTS):
        ring.find(credential(header, None))
    return (time.thread_time() - start_s) / REQUESTS * 1e6


async def event_us(permit: Permit) -> float:
    """Return what passing an event on took."""
    is_counted = permit.counts_tokens
    stream: AsyncIterator[bytes] = Events(with_usage=is_counted)
    if is_counted:
        stream = metered(Events(with_usage=True), permit, path="/v1/chat/completions", body={"stream": True}, raw=b"")
    start_s = time.thread_time()
    async for _ in stream:
        pass
    return (time.thread_time() - start_s) / EVENTS * 1e6


async def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median of each cost, in microseconds."""
    platform = Platform()
    keeping = await platform.start()
    costs: dict[str, Measure] = {
        "a key among 10": lambda: found_us(10),
        "a key among 1,000": lambda: found_us(1_000),
        "admission without limits": lambda: platform.admitted_us(platform.free),
        "admission with limits": lambda: platform.admitted_us(platform.limited),
        "an event passed on": lambda: event_us(UNLIMITED),
        "an event metered": lambda: event_us(Permit(charge=lambda _: None)),
    }
    taken: dict[str, list[float]] = {name: [] for name in costs}
    for _ in range(rounds):
        for name, cost in costs.items():
            taken[name].append(await cost())
    keeping.cancel()
    await asyncio.wait([keeping])
    return {name: median(values) for name, values in taken.items()}


def main() -> None:
    """Print the table."""
    for name, microseconds in asyncio.run(measure()).items():
        sys.stdout.write(f"{name:<26} {microseconds:6.2f} µs\n")


if __name__ == "__main__":
    main()
