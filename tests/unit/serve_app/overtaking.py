"""Two replicas and a Router that watches what waits there, for tests of requests that later ones overtake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from serve_app.call import Reply
from serve_app.overtaken import LEAST_WAIT_S, Overtaken
from serve_app.rollout.telemetry import Outcome
from tests.unit.serve_app.fakes import (
    SSE,
    Answer,
    FakeClock,
    FakeResponse,
    call,
    document,
    entry,
    gateway,
    leases_of,
    model,
    snapshot,
    turns,
    upstream_of,
)

DONE = (b"data: {}\n\n", b"data: [DONE]\n\n")
STREAM = {"model": "chat", "stream": True, "max_tokens": 8}
WHOLE = {"model": "chat", "max_tokens": 8}
RESCUED = FakeResponse((b'{"from": "second"}',))


class Lab:
    """Two replicas, ``r0`` and ``r1``, of which tests say what each answers next."""

    def __init__(self, *, max_leases: int = 500, hedge_after_s: float | None = None) -> None:
        self.clock = FakeClock()
        self.it = gateway(clock=self.clock)
        chat = model(("stable", 100), max_leases=max_leases).model_copy(update={"hedge_after_s": hedge_after_s})
        self.routing = document(models=(chat,))
        self.it.update(snapshot(entry("r0"), entry("r1"), routing=self.routing))

    @property
    def watch(self) -> Overtaken:
        return self.it._relay._overtaken

    @property
    def asked(self) -> list[str]:
        return upstream_of(self.it).asked

    def send(self, body: Mapping[str, Any], *, path: str = "/v1/chat/completions") -> asyncio.Task[Reply]:
        raw = json.dumps(body).encode()
        asked = replace(call(path=path), body=body, raw=raw)
        return asyncio.create_task(self.it.relay(asked, self.it.view.models["chat"]))

    async def ask(self, body: Mapping[str, Any], answer: Answer, *, at: str, path: str = "/v1/chat/completions") -> Reply:
        """Return what one replica answers; the other one has no place at this moment."""
        asking = await self.begin(body, answer, at=at, path=path)
        return asking.result()

    async def begin(
        self, body: Mapping[str, Any], answer: Answer, *, at: str, path: str = "/v1/chat/completions"
    ) -> asyncio.Task[Reply]:
        upstream_of(self.it).answers[:] = [answer]
        self.open(at)
        asking = self.send(body, path=path)
        await turns(12)
        self.open("r0", "r1")
        assert self.asked[-1] == f"http://{at}"
        return asking

    async def hang(self, body: Mapping[str, Any], *, at: str = "r0", path: str = "/v1/chat/completions") -> asyncio.Task[Reply]:
        """Send a request that a replica never answers."""
        return await self.begin(body, never, at=at, path=path)

    async def answered(
        self, count: int, *, at: str, body: Mapping[str, Any] = STREAM, answer: Callable[[], FakeResponse] | None = None
    ) -> None:
        """Have a replica answer some more requests."""
        for _ in range(count):
            made = answer() if answer is not None else stream(8) if body.get("stream") else whole(8)
            reply = await self.ask(body, made, at=at)
            if not isinstance(reply.body, bytes):
                assert [piece async for piece in reply.body][-1].endswith(DONE[-1])

    async def look(self, after_s: float = LEAST_WAIT_S, answer: Answer = RESCUED) -> None:
        """Let some time pass and have the Router look at what waits."""
        self.clock.now_s += after_s
        upstream_of(self.it).answers[:] = [answer]
        self.watch.look()
        await turns(12)

    def open(self, *names: str) -> None:
        """Let only these have a place."""
        for name, replica in self.it.pool._replicas.items():
            index = replica.home._index
            if index.is_open[replica.seat] != (name in names):
                (index.open if name in names else index.close)(replica.seat)

    def outcomes(self) -> dict[Outcome, int]:
        return dict(self.it.attempts.stats(("chat", "stable")).outcomes)


async def never() -> FakeResponse:
    await asyncio.Event().wait()
    raise AssertionError


def stream(tokens: int, *, reason: str = "length", pieces: int | None = None) -> FakeResponse:
    """Return a stream of so many tokens, a piece for each, with a role, a reason and an end."""
    last = b"data: " + json.dumps({"choices": [{"delta": {}, "finish_reason": reason}]}).encode() + b"\n\n"
    count = 1 + tokens if pieces is None else pieces - 2
    return FakeResponse((*[DONE[0]] * count, last, DONE[-1]), content_type=SSE)


def whole(tokens: int) -> FakeResponse:
    return FakeResponse((json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": tokens}}).encode(),))


async def leave(lab: Lab, *asked: asyncio.Task[Reply]) -> None:
    """End requests that still wait, as their clients would."""
    for asking in asked:
        assert not asking.done()
        asking.cancel()
    await turns(12)
    assert leases_of(lab.it) == 0
