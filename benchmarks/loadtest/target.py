"""A target with known latencies: the simulated engine's HTTP surface, two variants, and the Router's headers, in one process.

`python -m benchmarks.loadtest.target --port 8123` serves until it is ended. What it really did is at GET /truth: a busy machine
delays the target too, and an instrument is not to blame for that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from deployments.llm.simulated import SimulatedEngine
from serve_app.config import SimulatedLatency

BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Injected:
    """What is injected: the ends of uniform distributions in seconds, the canary's share, and what it does worse."""

    ttft_s: tuple[float, float] = (0.2, 0.6)
    itl_s: tuple[float, float] = (0.04, 0.06)
    canary_percent: int = 10
    canary_errors: float = 0.0  # share of its requests that it fails
    slots: int = 1_000_000  # streams at a time; more wait


@dataclass(slots=True)
class Truth:
    """What was really done, as the server saw it when it gave bytes away."""

    ttft_s: list[float] = field(default_factory=list)
    itl_s: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return the quantiles."""
        made: dict[str, Any] = {"streams": len(self.ttft_s)}
        for name, values in (("ttft", self.ttft_s), ("itl", self.itl_s)):
            made |= {f"{name}_p{q}_s": float(np.percentile(values, q)) if values else None for q in (50, 95)}
        return made


class InjectedTarget:
    """Streams with drawn latencies."""

    def __init__(self, injected: Injected, *, seed: int = 1) -> None:
        self._injected = injected
        self._chance = random.Random(seed)  # noqa: S311 -- latencies are no secrets
        self._slots = asyncio.Semaphore(injected.slots)
        self._waiting = 0
        self._running = 0
        self.truth = Truth()

    def app(self) -> Starlette:
        """Return the app."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/admin/status", self._status),
                Route("/truth", self._truth),
            ]
        )

    async def _chat(self, request: Request) -> Response:
        begun_s = time.perf_counter()
        body = await request.json()
        key = request.headers.get("x-session-id") or json.dumps(body["messages"][:1])
        is_canary = zlib.crc32(key.encode()) % BUCKETS < self._injected.canary_percent * BUCKETS // 100
        headers = {"x-manta-model": body["model"], "x-manta-variant": "canary" if is_canary else "stable"}
        if is_canary and self._chance.random() < self._injected.canary_errors:
            error = {"message": "injected fault", "type": "server_error", "param": None, "code": 500}
            return JSONResponse({"error": error}, status_code=500, headers=headers)
        pieces = self._pieces(int(body.get("max_tokens") or 16), begun_s)
        if body.get("stream"):
            return StreamingResponse(pieces, media_type="text/event-stream", headers=headers)
        count = len([piece async for piece in pieces]) - 2
        choice = {"index": 0, "message": {"role": "assistant", "content": "word " * count}, "finish_reason": "length"}
        return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": count}}, headers=headers)

    async def _pieces(self, count: int, begun_s: float) -> AsyncIterator[bytes]:
        ttft_s, itl_s = (self._chance.uniform(*ends) for ends in (self._injected.ttft_s, self._injected.itl_s))
        self._waiting += 1
        async with self._slots:
            self._waiting -= 1
            self._running += 1
            try:
                first_s = due_s = (
                    time.perf_counter() + ttft_s - (0.0 if self._slots.locked() else time.perf_counter() - begun_s)
                )
                for number in range(count):
                    await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                    if number == 0:
                        first_s = time.perf_counter()
                        self.truth.ttft_s.append(first_s - begun_s)
                    yield _event({"content": f"word{number} "})
                    due_s += itl_s
                if count > 1:
                    self.truth.itl_s.append((time.perf_counter() - first_s) / (count - 1))
            finally:
                self._running -= 1
        usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
        yield b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "chat", "object": "model", "owned_by": "injected"}]})

    async def _truth(self, request: Request) -> Response:
        summary = self.truth.summary()
        if "reset" in request.query_params:
            self.truth = Truth()
        return JSONResponse(summary)

    async def _status(self, _: Request) -> Response:
        percent = self._injected.canary_percent
        weights = {"stable": 100 - percent, "canary": percent}
        counts = {"stable": (self._waiting, self._running), "canary": (0, 0)}
        variants = [
            {
                "name": name,
                "weight": weight,
                "queue_depth": counts[name][0],
                "running": counts[name][1],
                "replicas": {"starting": 0, "ready": 1, "draining": 0},
            }
            for name, weight in weights.items()
        ]
        return JSONResponse({"waiting_in_router": 0, "models": [{"name": "chat", "variants": variants}], "pipelines": []})


def _event(delta: dict[str, str]) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": "chat"}
    return b"data: " + json.dumps({**head, "choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"


async def simulated_app(latency: SimulatedLatency) -> Any:
    """Return the simulated engine's own app."""
    return await SimulatedEngine("chat", latency).start()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ttft-ms", type=float, nargs=2, default=(200.0, 600.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--itl-ms", type=float, nargs=2, default=(40.0, 60.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--canary-percent", type=int, default=10)
    parser.add_argument("--canary-errors", type=float, default=0.0)
    parser.add_argument("--slots", type=int, default=1_000_000)
    parser.add_argument(
        "--simulated", action="store_true", help="serve the simulated engine itself, without the Router's headers"
    )
    asked = parser.parse_args()
    ttft_s, itl_s = (tuple(ms / 1000 for ms in ends) for ends in (asked.ttft_ms, asked.itl_ms))
    injected = Injected(ttft_s, itl_s, asked.canary_percent, asked.canary_errors, asked.slots)
    app = asyncio.run(simulated_app(SimulatedLatency())) if asked.simulated else InjectedTarget(injected).app()
    uvicorn.run(app, host="127.0.0.1", port=asked.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
