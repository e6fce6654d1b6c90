from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from deployments import preparing
from deployments.handles import HandleRetriever, LazyHandle
from deployments.preparing import keep_prepared
from serve_app.errors import Unavailable
from tests.unit.serve_app.fakes import PIPELINE, document, gateway, snapshot, turns


@dataclass
class Stage:
    """Counts how often it was asked; it fails as often as ``errors`` say."""

    errors: list[Exception] = field(default_factory=list)
    asked: int = 0

    async def prepare(self) -> None:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)

    describe = prepare


@dataclass
class Router:
    """What a Router is connected to, as its document changes."""

    retriever: Stage = field(default_factory=Stage)
    embedders: dict[str, Stage] = field(default_factory=lambda: {"minilm": Stage(), "large": Stage()})
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.gateway = gateway()

    async def has(self, *, embedders: tuple[str, ...] = (), pipelines: tuple[Any, ...] = ()) -> list[int]:
        """Return how often each stage was asked, the Retriever first, some time after the document has become this one."""
        version = self.gateway.version[1] + 1
        routing = document(embedders=embedders, pipelines=pipelines)
        self.gateway.update(snapshot(version=version, routing=routing))
        if self.task is None:
            view = lambda: self.gateway.view  # noqa: E731
            self.task = asyncio.create_task(keep_prepared(view, retriever=self.retriever, embedders=self.embedders))
        await turns(30)
        assert not self.task.done()
        return [self.retriever.asked, *(stage.asked for stage in self.embedders.values())]


@pytest.fixture
async def router(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Router]:
    monkeypatch.setattr(preparing, "EVERY_S", 0.0)
    made = Router()
    yield made
    assert made.task is not None
    made.task.cancel()
    await asyncio.wait([made.task])


async def test_what_the_document_names_is_asked_once_and_what_comes_later_too(router: Router) -> None:
    assert await router.has() == [0, 0, 0]
    assert await router.has(embedders=("minilm",)) == [0, 1, 0]
    assert await router.has(embedders=("minilm", "large"), pipelines=(PIPELINE,)) == [1, 1, 1]


async def test_a_stage_that_does_not_answer_is_asked_again_and_keeps_no_other_waiting(router: Router) -> None:
    router.embedders["minilm"].errors = [Unavailable("embedder.minilm is not deployed yet"), RuntimeError("odd")]
    assert await router.has(embedders=("minilm", "large")) == [0, 3, 1]


async def test_a_retriever_is_prepared_by_a_call_that_any_of_them_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def read(_: LazyHandle, method: str) -> None:
        asked.append(method)

    monkeypatch.setattr(LazyHandle, "read", read)
    await HandleRetriever("retriever").prepare()
    assert asked == ["check_health"]
