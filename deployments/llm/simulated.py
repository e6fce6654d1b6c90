"""Simulated engine: the HTTP surface of an LLM with a latency model instead of a model.

For load tests, autoscaling studies and quick integration tests. Its answers say that they are simulated.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from deployments.llm.engine import CURRENT_ADAPTER, AdapterEngine, AsgiApp, LoadedAdapter
from deployments.llm.simulated_answer import EngineDied, SimulatedAnswer
from deployments.llm.simulated_faults import GARBAGE, Fault, Faults, spoil
from deployments.llm.simulated_tokens import BadPrompt, Token, generate, prompt_ids
from deployments.rate import Rate
from deployments.slots import Slots
from serve_app.config import SimulatedLatency
from serve_app.contracts import EngineLoad

DEFAULT_TOKENS = 16
_DEAD = "this simulated engine plays dead (faults.dead)"


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
        self._faults = Faults(latency.faults)
        self._steps = 0
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
        return Starlette(routes=[*routes, *self._faults.routes()])

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

    def steps(self) -> int:
        """Return the tokens generated so far."""
        return self._steps

    def adapters(self) -> AdapterEngine:
        """Return what takes adapters in: answers of their requests begin with the adapter and its version."""
        return self._adapters

    def is_dead(self) -> bool:
        """Whether it plays dead."""
        return self._faults.is_dead

    async def check_health(self) -> None:
        """Raise EngineDied when it plays dead."""
        if self._faults.is_dead:
            raise EngineDied(_DEAD)

    async def stop(self) -> None:
        """Hold nothing, free nothing."""

    async def _models(self, _: Request) -> Response:
        card = {"id": self._model, "object": "model", "created": 0, "owned_by": "simulated"}
        return JSONResponse({"object": "list", "data": [card]})

    async def _chat(self, request: Request) -> Response:
        return await self._serve(request, is_chat=True)

    async def _complete(self, request: Request) -> Response:
        return await self._serve(request, is_chat=False)

    async def _serve(self, request: Request, *, is_chat: bool) -> Response:
        try:
            asked = _Asked(await request.body())
        except _BadField as err:
            return _bad_request(str(err), err.param)
        except (ValueError, AttributeError) as err:
            return _bad_request(f"the body is not a JSON object: {err}", None)
        fault = self._faults.next(request)
        if fault is Fault.HANG:
            await asyncio.Event().wait()
        if fault is Fault.ERROR:
            return _failed("simulated fault")
        if fault is Fault.GARBAGE:
            return Response(GARBAGE, media_type="text/event-stream" if asked.is_stream else "application/json")
        try:
            return await self._answer(asked, fault, is_chat=is_chat)
        except EngineDied as err:
            return _failed(str(err))

    async def _answer(self, asked: _Asked, fault: Fault | None, *, is_chat: bool) -> Response:
        adapter = CURRENT_ADAPTER.get()
        words = generate(asked.prompt, adapter=None if adapter is None else adapter.key)
        tokens = self._tokens(len(asked.prompt), itertools.islice(words, asked.count))
        model = self._model if adapter is None else adapter.public_name
        answer = SimulatedAnswer(model, asked.prompt, is_chat=is_chat, has_ids=asked.has_ids)
        if asked.is_stream:
            events = answer.stream(tokens)
            if fault is not None:
                events = spoil(events, fault, after=asked.count // 2 + (1 if asked.has_ids and is_chat else 0))
            return StreamingResponse(events, media_type="text/event-stream")
        raw = json.dumps(answer.whole([token async for token in tokens])).encode()
        if fault is None or fault is Fault.SILENT_END:  # which is of streams
            return Response(raw, media_type="application/json")
        return StreamingResponse(
            spoil(_halves(raw), fault, after=1), media_type="application/json", headers={"content-length": str(len(raw))}
        )

    async def _tokens(self, prompt_tokens: int, tokens: Iterator[Token]) -> AsyncGenerator[Token, None]:
        async with self._slots:
            await self.check_health()
            await asyncio.sleep(prompt_tokens * self._latency.prefill_s_per_token * self._faults.slow_factor)
            # Absolute deadlines: late wake-ups of a busy machine must not add up to a slower simulated engine.
            due_s = time.monotonic()
            for token in tokens:
                due_s += self._latency.decode_s_per_token * self._faults.slow_factor
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                await self.check_health()
                self._generated.add(1)
                self._steps += 1
                yield token


class _Asked:
    """What the body of a request says."""

    def __init__(self, raw: bytes) -> None:
        """Raises ValueError or AttributeError for what is no JSON object, _BadField for a field."""
        body = json.loads(raw)
        self.count = _answer_tokens(body)
        self.is_stream = bool(body.get("stream"))
        self.has_ids = bool(body.get("return_token_ids"))
        try:
            self.prompt = prompt_ids(body)
        except BadPrompt as err:
            raise _BadField("prompt", str(err)) from err


def _answer_tokens(body: dict[str, Any]) -> int:
    for field in ("max_completion_tokens", "max_tokens"):
        if (count := body.get(field)) is not None:
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise _BadField(field, f"{field} must be an integer of at least 1, got {count!r}")
            return count
    return DEFAULT_TOKENS


async def _halves(raw: bytes) -> AsyncGenerator[bytes, None]:
    middle = len(raw) // 2
    yield raw[:middle]
    yield raw[middle:]


def _bad_request(message: str, param: str | None) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": "invalid_request"}
    return JSONResponse({"error": error}, status_code=400)


def _failed(message: str) -> Response:
    error = {"message": message, "type": "server_error", "param": None, "code": 500}
    return JSONResponse({"error": error}, status_code=500)
