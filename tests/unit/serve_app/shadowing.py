"""A gateway with shadow traffic, and answers whose text is known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from serve_app.config_rollouts import ShadowConfig
from serve_app.gateway import Call, Gateway, Reply
from serve_app.rag.chain import FORMS
from serve_app.rag.wire import Refusal
from serve_app.rollout.telemetry import ShadowStats, VariantStats
from serve_app.sse import error_event, json_event
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import (
    SSE,
    Answer,
    FakeClock,
    FakeResponse,
    document,
    entry,
    gateway,
    leases_of,
    model,
    snapshot,
    until,
)

CHAT = "/v1/chat/completions"
KEY = ("chat", "canary")
READY = (entry("r1"), entry("c1", "canary"))
ERROR = error_event("out of memory")


def shadowed(*answers: Answer, replicas: Sequence[Any] = READY, clock: FakeClock | None = None, **config: Any) -> Gateway:
    """Return a gateway whose stable variant answers and whose canary gets copies; its answers alternate."""
    copies = ShadowConfig(**{"variant": "canary", "percent": 100, **config})
    chat = model(("stable", 100), ("canary", 0)).model_copy(update={"shadow": copies})
    made = gateway(*answers, clock=clock)
    made.update(snapshot(*replicas, routing=document(models=(chat,))))
    return made


async def ask(made: Gateway, request_id: str = "q1", *, path: str = CHAT, **more: Any) -> Reply:
    call = Call(path, {"model": "chat", "stream": True}, b'{"model": "chat"}', ANONYMOUS, request_id=request_id, **more)
    return await made.relay(call, made.view.models["chat"])


def refusal(text: str) -> Refusal:
    return Refusal(text, "chat", "1", 0, {})


def events(text: str, path: str = CHAT) -> FakeResponse:
    """Return a stream that says something, in the path's own events."""
    return FakeResponse(list(FORMS[path].refusal_events(refusal(text))), content_type=SSE)


def stream(*parts: bytes | Exception | asyncio.Event) -> FakeResponse:
    return FakeResponse(parts, content_type=SSE)


def whole(text: str, path: str = CHAT) -> FakeResponse:
    body = json_event(FORMS[path].refusal(refusal(text))).removeprefix(b"data: ")
    return FakeResponse((body,))


def gated(gate: asyncio.Event, response: FakeResponse) -> FakeResponse:
    response.parts = (gate, *response.parts)
    return response


async def hang() -> FakeResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def drained(reply: Reply) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else b"".join([piece async for piece in reply.body])


async def settled(made: Gateway, *, own: int = 0) -> ShadowStats:
    """Return what was counted, once no copy is open; then nothing may be left of them. ``own``: requests of the canary's."""
    await until(lambda: not any(made.shadows._open.values()))
    assert leases_of(made) == 0
    assert made.attempts.waiting([KEY])[KEY].whole.total == 0
    assert made.attempts.take().get(KEY, VariantStats()).outcomes.total() == own
    return made.shadows.take().get(KEY, ShadowStats())


async def compared(made: Gateway, path: str = CHAT) -> tuple[int, int, float]:
    await drained(await ask(made, path=path))
    stats = await settled(made)
    return stats.compared, stats.agreed, round(stats.similarity_sum, 3)
