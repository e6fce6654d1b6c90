"""Streams opened against a platform, and what became of each."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import httpx


@dataclass
class StreamResult:
    """One stream as its client saw it."""

    tokens: int = 0
    is_done: bool = False  # ended with [DONE]
    errors: list[str] = field(default_factory=list)
    status: int = 0


async def read_stream(client: httpx.AsyncClient, url: str, *, tokens: int, session: str) -> StreamResult:
    """Stream a chat of ``tokens`` tokens to its end."""
    result = StreamResult()
    body = {"model": "chat", "stream": True, "max_tokens": tokens, "messages": [{"role": "user", "content": session}]}
    try:
        async with client.stream(
            "POST", f"{url}/v1/chat/completions", json=body, headers={"x-session-id": session}
        ) as response:
            result.status = response.status_code
            async for line in response.aiter_lines():
                _take(line, result)
    except httpx.HTTPError as err:
        result.errors.append(repr(err))
    return result


def _take(line: str, result: StreamResult) -> None:
    if line == "data: [DONE]":
        result.is_done = True
    elif line.startswith("data: "):
        event = json.loads(line[6:])
        if "error" in event:
            result.errors.append(str(event["error"]))
        else:
            result.tokens += bool(event["choices"][0]["delta"].get("content"))


async def read_streams(url: str, count: int, *, tokens: int) -> list[StreamResult]:
    """Run ``count`` streams at the same time, each a conversation of its own."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        return await asyncio.gather(*(read_stream(client, url, tokens=tokens, session=f"s{i}") for i in range(count)))
