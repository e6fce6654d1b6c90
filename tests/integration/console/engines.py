"""Engines that are made up: what they stream, and the passages that a pipeline finds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from serve_app.contracts import Chunk, Hit
from serve_app.upstream import UpstreamRequest

WORDS = "functools.cache keeps every result of a function [1], so that the same call is not computed twice [2]. "
HITS = (
    Hit(
        Chunk(
            "library/functools.html",
            "library/functools.html",
            0,
            title="functools",
            headings=("Higher-order functions", "functools.cache"),
            text="Simple lightweight unbounded function cache. Returns the same as lru_cache(maxsize=None).",
            start=120,
            end=210,
        ),
        0.91,
    ),
    Hit(
        Chunk(
            "faq/programming.html",
            "faq/programming.html",
            4,
            title="Programming FAQ",
            headings=("How do I cache method calls?",),
            text="The two principal tools for caching methods are cached_property and lru_cache.",
            start=900,
            end=980,
        ),
        0.44,
    ),
)


@dataclass
class Stream:
    """An answer as an engine streams it: word by word, then what it has cost. At a ``gate`` it waits after three words."""

    text: str = WORDS
    status: int = 200
    content_type: str = "text/event-stream"
    gate: asyncio.Event | None = None
    is_closed: bool = False

    def __post_init__(self) -> None:
        words = [_delta(f"{word} ") for word in self.text.split(" ")]
        self._pieces = [*words, _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + USAGE]
        self._sent = 0

    async def chunk(self) -> bytes:
        if self._sent == 3 and self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0.01)
        if self._sent == len(self._pieces):
            return b""
        self._sent += 1
        return self._pieces[self._sent - 1]

    async def read(self) -> bytes:
        return self.text.encode()

    def close(self) -> None:
        self.is_closed = True


def _event(document: dict[str, Any]) -> bytes:
    return (
        b"data: " + json.dumps({"id": "c1", "object": "chat.completion.chunk", "model": "chat", **document}).encode() + b"\n\n"
    )


def _delta(text: str) -> bytes:
    return _event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


USAGE = (
    _event({"choices": [], "usage": {"prompt_tokens": 41, "completion_tokens": 17, "total_tokens": 58}}) + b"data: [DONE]\n\n"
)


@dataclass
class Engines:
    """Streams what tests set next; keeps what it was asked."""

    next_stream: Callable[[], Stream] = Stream
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def open(self, url: str, request: UpstreamRequest) -> Stream:
        self.requests.append(json.loads(request.body))
        return self.next_stream()
