"""Simulated engine: the HTTP surface of an LLM with a latency model instead of a model.

For load tests, autoscaling studies and quick integration tests. Its answers say that they are simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from deployments.llm.engine import CURRENT_ADAPTER, AdapterEngine, AsgiApp, LoadedAdapter
from deployments.rate import Rate
from deployments.slots import Slots
from serve_app.config import SimulatedLatency
from serve_app.contracts import EngineLoad

WORDS = ("simulated", "answer", "with", "no", "model", "behind", "it")
DEFAULT_TOKENS = 16


class _BadField(ValueError):
    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class SimulatedAdapters:
    """Remembers which adapters there are; implements AdapterEngine."""

    def __init__(self) -> None:
        self.loaded: set[LoadedAdapter] = set()

    async def load(self, adapter: LoadedAdapter, folder: str) -> None:  # noqa: ARG002
        """Take an adapter in."""
        self.loaded.add(adapter)

    async def unload(self, adapter: LoadedAdapter) -> None:
        """Let an adapter go."""
        self.loaded.discard(adapter)


class SimulatedEngine:
    """An Engine that sleeps instead of computing."""

    def __init__(self, model: str, latency: SimulatedLatency, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._latency = latency
        self._slots = Slots(latency.slots)
        self._generated = Rate(clock=clock)
        self._requests = 0
        self._adapters = SimulatedAdapters()

    async def start(self) -> AsgiApp:
        """Return the app after ``start_s`` seconds. Raises RuntimeError when it is meant to fail."""
        await asyncio.sleep(self._latency.start_s)
        if self._latency.faults.fails_to_start:
            raise RuntimeError("this simulated engine is configured to fail (faults.fails_to_start)")
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._complete, methods=["POST"]),
            Route("/v1/models", self._models, methods=["GET"]),
        ]
        return Starlette(routes=routes)

    def phase(self) -> str:
        """Return nothing: its start has no parts."""
        return ""

    def load(self) -> EngineLoad:
        """Return the load as a real engine would; the cache use is the share of busy slots."""
        slots = self._slots
        return EngineLoad(
            waiting=slots.waiting,
            running=slots.running,
            kv_cache_usage_ratio=slots.running / slots.count,
            slots=slots.count,
            tokens_per_s=self._generated.per_s(),
        )

    def adapters(self) -> AdapterEngine:
        """Return what takes adapters in: answers of their requests begin with the adapter and its version."""
        return self._adapters

    def is_dead(self) -> bool:
        """Return False: it dies with its process only."""
        return False

    async def check_health(self) -> None:
        """Always healthy."""

    async def stop(self) -> None:
        """Hold nothing, free nothing."""

    async def _models(self, _: Request) -> Response:
        card = {"id": self._model, "object": "model", "created": 0, "owned_by": "simulated"}
        return JSONResponse({"object": "list", "data": [card]})

    async def _chat(self, request: Request) -> Response:
        return await self._answer(await request.body(), kind="chat")

    async def _complete(self, request: Request) -> Response:
        return await self._answer(await request.body(), kind="text")

    async def _answer(self, raw: bytes, *, kind: str) -> Response:
        try:
            body = json.loads(raw)
            count = _answer_tokens(body)
        except _BadField as err:
            return _bad_request(str(err), err.param)
        except (ValueError, AttributeError) as err:
            return _bad_request(f"the body is not a JSON object: {err}", None)
        if (failed := await self._fault()) is not None:
            return failed
        prompt_tokens = len(json.dumps(body.get("messages") or body.get("prompt") or "")) // 4
        adapter = CURRENT_ADAPTER.get()
        words = WORDS if adapter is None else (adapter.key, *WORDS)
        tokens = self._tokens(prompt_tokens, itertools.islice(itertools.cycle(words), count))
        shape = _Shape(kind, self._model if adapter is None else adapter.public_name)
        if body.get("stream"):
            return StreamingResponse(shape.stream(tokens), media_type="text/event-stream")
        text = "".join([token async for token in tokens])
        return JSONResponse(shape.whole(text, prompt_tokens, count))

    async def _fault(self) -> Response | None:
        """Do to this request what is configured: shares are spread evenly over the requests."""
        faults = self._latency.faults
        self._requests += 1
        if faults.crash_after_requests is not None and self._requests > faults.crash_after_requests:
            os._exit(1)  # as a killed process would: nothing is drained, nobody is told
        if _is_due(self._requests, faults.hang_ratio):
            await asyncio.Event().wait()
        if _is_due(self._requests, faults.error_ratio):
            error = {"message": "simulated fault", "type": "server_error", "param": None, "code": 500}
            return JSONResponse({"error": error}, status_code=500)
        return None

    async def _tokens(self, prompt_tokens: int, words: Iterator[str]) -> AsyncGenerator[str, None]:
        async with self._slots:
            await asyncio.sleep(prompt_tokens * self._latency.prefill_s_per_token)
            # Absolute deadlines: late wake-ups of a busy machine must not add up to a slower simulated engine.
            due_s = time.monotonic()
            for word in words:
                due_s += self._latency.decode_s_per_token
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                self._generated.add(1)
                yield word + " "


class _Shape:
    """OpenAI's response objects for one answer."""

    def __init__(self, kind: str, model: str) -> None:
        self._is_chat = kind == "chat"
        self._head = {
            "id": f"{'chatcmpl' if self._is_chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": "simulated",
        }

    async def stream(self, tokens: AsyncGenerator[str, None]) -> AsyncGenerator[bytes, None]:
        """Yield one server-sent event per token, a last one with the finish reason, then [DONE]."""
        async with contextlib.aclosing(tokens):  # a client that leaves gives its slot back at once
            async for token in tokens:
                yield self._event(token, None)
        yield self._event("", "length")
        yield b"data: [DONE]\n\n"

    def whole(self, text: str, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        """Return the answer of a request that did not ask for a stream."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        total = prompt_tokens + completion_tokens
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}
        kind = "chat.completion" if self._is_chat else "text_completion"
        return {**self._head, "object": kind, "choices": [choice], "usage": usage}

    def _event(self, token: str, finish_reason: str | None) -> bytes:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        choice |= {"delta": {"content": token} if token else {}} if self._is_chat else {"text": token}
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        return b"data: " + json.dumps({**self._head, "object": kind, "choices": [choice]}).encode() + b"\n\n"


def _is_due(number: int, ratio: float) -> bool:
    return int(number * ratio) > int((number - 1) * ratio)


def _answer_tokens(body: dict[str, Any]) -> int:
    for field in ("max_completion_tokens", "max_tokens"):
        if (count := body.get(field)) is not None:
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise _BadField(field, f"{field} must be an integer of at least 1, got {count!r}")
            return count
    return DEFAULT_TOKENS


def _bad_request(message: str, param: str | None) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": "invalid_request"}
    return JSONResponse({"error": error}, status_code=400)
