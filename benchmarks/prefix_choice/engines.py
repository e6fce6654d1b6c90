"""The engines behind the Routers: what they have open right now, and how much of their prompts their caches had."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import httpx

from benchmarks.data_path.contracts import Endpoint

PERIOD_S = 0.5


@dataclass(frozen=True, slots=True)
class Cached:
    """Prompt text since the engine's start, in the engine's own unit (characters of the fake, tokens of vLLM)."""

    asked: float
    found: float


@dataclass(frozen=True, slots=True)
class Sample:
    """An engine at one moment."""

    open: float
    cached: Cached


def read_fake(text: str) -> Sample:
    """Return the fake's sample from its /stats."""
    seen = httpx.Response(200, text=text).json()
    return Sample(seen["open"], Cached(seen["prompt_chars"], seen["cached_chars"]))


def read_vllm(text: str) -> Sample:
    """Return vLLM's sample from its /metrics."""

    def total(name: str) -> float:
        return sum(float(value) for value in re.findall(rf"^vllm:{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE))

    is_open = total("num_requests_running") + total("num_requests_waiting")
    return Sample(is_open, Cached(total("prefix_cache_queries_total"), total("prefix_cache_hits_total")))


# Where an engine tells of itself, and how to read it.
LOOKS: Mapping[str, tuple[str, Callable[[str], Sample]]] = {"fake": ("/stats", read_fake), "vllm": ("/metrics", read_vllm)}


@dataclass
class Watch:
    """Samples engines while a load runs. Use as a context manager."""

    kind: str
    engines: Sequence[Endpoint]
    samples: list[list[Sample]] = field(default_factory=list)  # one list per moment, one sample per engine
    _is_over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._sample()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    async def _sample(self) -> None:
        path, read = LOOKS[self.kind]
        async with httpx.AsyncClient(timeout=30) as client:
            while not self._is_over.is_set():
                urls = [f"http://{engine.host}:{engine.port}{path}" for engine in self.engines]
                answers = await asyncio.gather(*(client.get(url) for url in urls))
                self.samples.append([read(answer.text) for answer in answers])
                await asyncio.sleep(PERIOD_S)

    def hit_ratio(self) -> float:
        """Return what share of the prompts' text was in a cache, over all engines."""
        first, last = self.samples[0], self.samples[-1]
        asked = sum(b.cached.asked - a.cached.asked for a, b in zip(first, last, strict=True))
        found = sum(b.cached.found - a.cached.found for a, b in zip(first, last, strict=True))
        return found / asked if asked else 0.0

    def imbalance(self) -> float:
        """Return the largest mean load of an engine over the mean of them all; 1 is even."""
        loads = [sum(moment[i].open for moment in self.samples) for i in range(len(self.engines))]
        return max(loads) * len(loads) / sum(loads) if sum(loads) else 1.0
