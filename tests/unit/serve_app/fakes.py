"""Fakes for the serving core: a clock, an upstream, the stages, and what they are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve_app.config import PipelineConfig, PipelineVersionConfig
from serve_app.contracts import (
    Chunk,
    DirectorySnapshot,
    EmbeddingFingerprint,
    EngineLoad,
    Hit,
    ReplicaEntry,
    ReplicaState,
    SearchQuery,
)
from serve_app.errors import BadRequest, PlatformError
from serve_app.gateway import Call, Gateway, Reply, Stages
from serve_app.rollout.document import RoutedModel, RoutedVariant, RoutingDocument
from serve_app.upstream import ReplicaUnreachable, UpstreamRequest
from serve_app.view import ANONYMOUS

SSE = "text/event-stream; charset=utf-8"


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def entry(replica_id: str = "r1", variant: str = "stable", *, open_requests: int = 0, **more: Any) -> ReplicaEntry:
    """Return a ready replica of model chat."""
    made: dict[str, Any] = {"model": "chat", "url": f"http://{replica_id}", "state": ReplicaState.READY, **more}
    load = EngineLoad(open_requests=open_requests)
    return ReplicaEntry(replica_id=replica_id, variant=variant, load=load, **made)


def model(*weights: tuple[str, int], name: str = "chat", max_leases: int = 2) -> RoutedModel:
    """Return a model with these variants."""
    variants = [RoutedVariant(name=v, weight=w, max_leases=max_leases, engine="simulated") for v, w in weights]
    return RoutedModel(name=name, variants=tuple(variants))


PIPELINE = PipelineConfig(
    name="docs",
    versions=(
        PipelineVersionConfig(
            name="v1",
            embedder="minilm",
            collection="books",
            prompt="{% for h in hits %}[{{ h.number }}] {{ h.title }}: {{ h.text }}\n{% endfor %}Q: {{ question }}",
            model="chat",
        ),
    ),
)


def document(**changes: Any) -> RoutingDocument:
    """Return a routing document with a model, a pipeline and an embedder."""
    base: dict[str, Any] = {"models": (model(("stable", 100)),), "pipelines": (PIPELINE,), "embedders": ("minilm",)}
    return RoutingDocument(**{**base, **changes})


def snapshot(*replicas: ReplicaEntry, routing: RoutingDocument | None = None, version: int = 1) -> DirectorySnapshot:
    """Return a complete directory."""
    return DirectorySnapshot("e", version, replicas, (routing or document()).model_dump_json())


@dataclass
class FakeResponse:
    """An answer whose body comes in ``parts``; an exception among them breaks the connection there. Closed, it begins anew."""

    parts: Sequence[bytes | Exception | asyncio.Event] = (b'{"ok": true}',)
    status: int = 200
    content_type: str = "application/json"
    closed: int = 0
    read_parts: int = 0

    async def chunk(self) -> bytes:
        while self.read_parts < len(self.parts):
            part = self.parts[self.read_parts]
            self.read_parts += 1
            if isinstance(part, Exception):
                raise part
            if not isinstance(part, asyncio.Event):
                return part
            await part.wait()
        return b""

    async def read(self) -> bytes:
        parts = []
        while part := await self.chunk():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        self.closed += 1
        self.read_parts = 0


Answer = FakeResponse | Exception | Callable[[], Awaitable[FakeResponse]]


@dataclass
class FakeUpstream:
    """Gives the next answer for whichever replica is asked; the last one again and again."""

    answers: list[Answer]
    asked: list[str] = field(default_factory=list)
    requests: list[UpstreamRequest] = field(default_factory=list)

    async def open(self, url: str, request: UpstreamRequest) -> FakeResponse:
        self.asked.append(url)
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, FakeResponse) else await answer()


HITS = [
    Hit(Chunk("d#0", "d", 0, title="D", headings=("A", "B"), text="one", start=0, end=3), 0.5),
    Hit(Chunk("d#1", "d", 1, title="D", headings=(), text="two", start=3, end=6), 0.25),
]


@dataclass
class FakeRetriever:
    """Finds ``hits`` or fails with ``error``; knows what it was asked."""

    hits: Sequence[Hit] = tuple(HITS)
    error: PlatformError | None = None
    queries: list[SearchQuery] = field(default_factory=list)

    async def search(self, query: SearchQuery) -> list[Hit]:
        self.queries.append(query)
        if self.error is not None:
            raise self.error
        return list(self.hits)


class FakeEmbedder:
    """Vector of a text: its length and a half. Reads 100 words of one."""

    async def embed(self, texts: Sequence[str], *, budget_s: float | None = None) -> list[list[float]]:
        return [[float(len(text)), 0.5] for text in texts]

    async def count_tokens(self, texts: Sequence[str], *, must_fit: bool = False) -> int:
        counts = [len(text.split()) for text in texts]
        if must_fit and max(counts) > 100:
            raise BadRequest(f"input has {max(counts)} tokens", param="input")
        return sum(min(count, 100) for count in counts)

    async def describe(self) -> EmbeddingFingerprint:
        return EmbeddingFingerprint("org/minilm", dimension=2, normalized=True)


@dataclass
class Woken:
    """Records which variants were woken; each call waits until ``may_end``."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, model: str, variant: str) -> None:
        self.calls.append((model, variant))
        await self.may_end.wait()


def gateway(*answers: Answer, retriever: FakeRetriever | None = None, clock: FakeClock | None = None) -> Gateway:
    """Return a gateway that knows nothing of any replica yet."""
    stages = Stages(retriever=retriever or FakeRetriever(), embedders={"minilm": FakeEmbedder()})
    upstream = FakeUpstream(list(answers) or [FakeResponse()])
    return Gateway(upstream=upstream, wake=Woken(), stages=stages, clock=clock or FakeClock())


def upstream_of(made: Gateway) -> FakeUpstream:
    """Return the fake behind a gateway."""
    upstream = made._relay._upstream
    assert isinstance(upstream, FakeUpstream)
    return upstream


def woken_of(made: Gateway) -> Woken:
    """Return what the gateway has woken."""
    assert isinstance(made._wake, Woken)
    return made._wake


def leases_of(made: Gateway) -> int:
    """Return how many leases are open."""
    return sum(replica.leases for replica in made.pool._replicas.values())


async def turns(count: int = 5) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something that another task does has happened."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (what is waited for offers no event)
            await asyncio.sleep(0.001)


UNREACHED = ReplicaUnreachable("connection refused", was_sent=False)
BROKEN = ReplicaUnreachable("connection reset")


def call(session: str = "s1", path: str = "/v1/chat/completions") -> Call:
    """Return a chat of the session."""
    return Call(path, {"model": "chat"}, b'{"model": "chat"}', ANONYMOUS, request_id="q1", session_id=session)


async def relay(made: Gateway, session: str = "s1") -> Reply:
    """Relay a chat of the session."""
    return await made.relay(call(session), made.view.models["chat"])
