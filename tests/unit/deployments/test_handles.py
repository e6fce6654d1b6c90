from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from deployments import handles as handles_module
from deployments.handles import LOST, Asked, HandleDirectory, HandleEmbedders, HandleRetriever, HandleRollouts, LazyHandle, wake
from deployments.names import embedder_app, llm_app
from deployments.tries import INNER_TRY_S, Patience, Tries
from serve_app.contracts import EmbeddingFingerprint, SearchQuery
from serve_app.errors import EmptyCollection, RateLimited, Unavailable
from tests.unit.serve_app.fakes import HITS, entry, snapshot, turns

ANSWERS: dict[str, Any] = {
    "embed": [[1.0]],
    "count_tokens": 3,
    "describe": EmbeddingFingerprint("org/a", 1, normalized=True),
    "search": HITS,
    "watch": snapshot(),
    "scaling": {"apps": []},
    "load_tests": [{"by": "ci"}],
    "publish_load_test": {"by": "ci"},
}


@dataclass
class FakeServe:
    """Stands in for Serve's handles: writes down the calls and gives ANSWERS."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    patiences: list[Patience] = field(default_factory=list)
    error: Exception | None = None

    async def call(self, handle: LazyHandle, method: str, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((handle._app, handle._deployment, method, *args, *kwargs.items()))
        if self.error is not None:
            raise self.error
        return ANSWERS.get(method)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> FakeServe:
    """Handles that need no Ray."""
    made = FakeServe()

    async def call(handle: LazyHandle, method: str, *args: Any, **kwargs: Any) -> Any:
        return await made.call(handle, method, *args, **kwargs)

    async def read_within(handle: LazyHandle, patience: Patience, method: str, asked: Callable[[float], Asked]) -> Any:
        made.patiences.append(patience)
        args, kwargs = asked(patience.total_s)
        return await made.call(handle, method, *args, **kwargs)

    monkeypatch.setattr(LazyHandle, "call", call)
    monkeypatch.setattr(LazyHandle, "read", call)
    monkeypatch.setattr(LazyHandle, "read_within", read_within)
    return made


async def test_the_directory_is_rollouts(serve: FakeServe) -> None:
    directory = HandleDirectory("rollouts")
    await directory.heartbeat(entry("r1"), 3)
    await directory.drain("r1")
    await directory.deregister("r1")
    assert await directory.watch("e", 1) == snapshot()
    assert serve.calls == [
        ("rollouts", "Rollouts", "heartbeat", entry("r1"), 3),
        ("rollouts", "Rollouts", "drain", "r1"),
        ("rollouts", "Rollouts", "deregister", "r1"),
        ("rollouts", "Rollouts", "watch", "e", 1),
    ]


async def test_rollouts_tells_how_scaling_stands(serve: FakeServe) -> None:
    assert await HandleRollouts("rollouts").scaling() == {"apps": []}
    assert serve.calls == [("rollouts", "Rollouts", "scaling")]


async def test_rollouts_takes_and_lists_load_tests(serve: FakeServe) -> None:
    rollouts = HandleRollouts("rollouts")
    assert await rollouts.publish_load_test({"scenario": "smoke"}, by="ci") == {"by": "ci"}
    assert await rollouts.load_tests() == [{"by": "ci"}]
    assert serve.calls == [
        ("rollouts", "Rollouts", "publish_load_test", {"scenario": "smoke"}, "ci"),
        ("rollouts", "Rollouts", "load_tests"),
    ]


async def test_embedders_are_found_by_name_and_kept(serve: FakeServe) -> None:
    embedders = HandleEmbedders(embedder_app)
    minilm = embedders["minilm"]
    assert (await minilm.embed(("a",)), await minilm.count_tokens(("a",))) == ([[1.0]], 3)
    assert await minilm.describe() == ANSWERS["describe"]
    assert [call[:3] for call in serve.calls] == [
        ("embedder.minilm", "Embedder", "embed"),
        ("embedder.minilm", "Embedder", "count_tokens"),
        ("embedder.minilm", "Embedder", "describe"),
    ]
    assert (embedders["minilm"] is minilm, list(embedders), len(embedders)) == (True, ["minilm"], 1)


async def test_the_embedder_is_told_when_texts_must_fit(serve: FakeServe) -> None:
    await HandleEmbedders(embedder_app)["minilm"].count_tokens(["a"], must_fit=True)
    assert serve.calls == [("embedder.minilm", "Embedder", "count_tokens", ["a"], ("must_fit", True))]


async def test_a_stage_within_a_stage_tries_again_before_its_caller_gives_up(serve: FakeServe) -> None:
    inner = HandleEmbedders(embedder_app, try_s=INNER_TRY_S)["minilm"]
    await inner.embed(["a question"], budget_s=30.0)
    await inner.describe()
    await HandleRetriever("retriever").search(SearchQuery("books", "minilm", "why?", 3))
    *inside, outside = serve.patiences
    assert [2 * patience.try_s <= outside.try_s for patience in inside] == [True, True]


async def test_many_texts_at_once_have_more_time_before_another_try(serve: FakeServe) -> None:
    await HandleEmbedders(embedder_app, try_s=INNER_TRY_S)["minilm"].embed(["text"] * 10, budget_s=90.0)
    assert serve.patiences == [Patience(total_s=90.0, try_s=20.0)]


async def test_what_the_retriever_raises_is_raised(serve: FakeServe) -> None:
    retriever = HandleRetriever("retriever")
    query = SearchQuery("books", "minilm", "why?", 3)
    assert await retriever.search(query) == HITS
    serve.error = EmptyCollection("books")
    with pytest.raises(EmptyCollection):
        await retriever.search(query)


class RayError(Exception): ...


class BusyError(Exception): ...


class CancelledInRay(Exception): ...


@dataclass
class FakeRay:
    """Stands in for the modules of Ray that handles import: an app that comes at the n-th look-up, and its answer."""

    comes_at: int = 1
    answer: Any = None
    lookups: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeRay:
        serve = SimpleNamespace(get_deployment_handle=self._find)
        gone = {"DeploymentUnavailableError": RayError, "ReplicaUnavailableError": RayError}
        modules = {
            "ray": SimpleNamespace(serve=serve),
            "ray.serve": serve,
            "ray.exceptions": SimpleNamespace(RayActorError=RayError, TaskCancelledError=CancelledInRay),
            "ray.serve.exceptions": SimpleNamespace(BackPressureError=BusyError, RequestCancelledError=CancelledInRay, **gone),
        }
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, cast(ModuleType, module))
        monkeypatch.setattr(handles_module, "RETRY_S", 0.0)
        return self

    def _find(self, deployment: str, app: str) -> Any:
        self.lookups += 1
        if self.lookups < self.comes_at:
            raise KeyError(app)
        return SimpleNamespace(wake=SimpleNamespace(remote=self._call))

    async def _call(self, *args: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_handle_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(answer=7).install(monkeypatch)
    handle = LazyHandle("LLM", "llm.chat.stable")
    assert [await handle.call("wake"), await handle.call("wake"), ray.lookups] == [7, 7, 1]
    await wake("llm.chat.stable")


async def test_an_app_that_comes_later_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay(comes_at=3, answer=7).install(monkeypatch)
    assert await LazyHandle("LLM", "llm.chat.stable", wait_s=60).call("wake") == 7


@pytest.mark.parametrize(
    ("ray", "error", "message"),
    [
        (FakeRay(comes_at=9), Unavailable, "llm.chat.stable is not deployed yet"),
        (FakeRay(answer=RayError("10.0.0.1")), Unavailable, "llm.chat.stable has no healthy replica; try again later"),
        (FakeRay(answer=BusyError()), RateLimited, "llm.chat.stable is busy; try again later"),
        (FakeRay(answer=EmptyCollection("books")), EmptyCollection, "collection 'books' is empty"),
        (FakeRay(answer=ValueError("odd")), ValueError, "odd"),
    ],
    ids=["not-deployed", "no-replica", "busy", "ours", "unknown"],
)
async def test_failures_of_serve_become_errors_for_clients(
    monkeypatch: pytest.MonkeyPatch, ray: FakeRay, error: type[Exception], message: str
) -> None:
    ray.install(monkeypatch)
    with pytest.raises(error, match=message):
        await LazyHandle("LLM", "llm.chat.stable").call("wake")


def test_a_variant_has_an_application_of_its_own() -> None:
    assert llm_app("chat", "stable") == "llm.chat.stable"


async def test_a_read_outlives_a_replica_and_a_write_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class GoneError(Exception): ...

    ray = FakeRay(answer=RayError("died")).install(monkeypatch)
    monkeypatch.setattr(sys.modules["ray.serve.exceptions"], "DeploymentUnavailableError", GoneError)
    monkeypatch.setattr(sys.modules["ray.serve.exceptions"], "ReplicaUnavailableError", GoneError)
    tries = 0

    async def answer(*_: Any) -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RayError("died")
        return 7

    monkeypatch.setattr(ray, "_call", answer)
    handle = LazyHandle("Rollouts", "rollouts")
    handle._tries = Tries("rollouts", LOST, spread=lambda: 0.0)
    assert (await handle.read("wake"), tries) == (7, 2)
    tries = 0
    with pytest.raises(Unavailable, match="rollouts has no healthy replica"):
        await handle.call("wake")
    assert tries == 1


async def test_a_call_that_is_given_up_is_cancelled_in_its_replica() -> None:
    response: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    handle = LazyHandle("Embedder", "embedder.minilm")
    handle._handle = SimpleNamespace(describe=SimpleNamespace(remote=lambda: response))
    call = asyncio.ensure_future(handle.read("describe"))
    await turns()
    call.cancel()
    await turns()
    assert (call.cancelled(), response.cancelled()) == (True, True)


async def test_a_read_that_was_cancelled_where_it_ran_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay().install(monkeypatch)
    responses: list[asyncio.Future[int]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
    responses[0].cancel()
    responses[1].set_result(7)
    handle = LazyHandle("Embedder", "embedder.minilm")
    handle._handle = SimpleNamespace(describe=SimpleNamespace(remote=lambda: responses.pop(0)))
    handle._tries = Tries("embedder.minilm", LOST, spread=lambda: 0.0)
    assert await handle.read("describe") == 7


async def test_a_write_that_was_cancelled_where_it_ran_is_told_as_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay().install(monkeypatch)
    response: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    response.cancel()
    handle = LazyHandle("Rollouts", "rollouts")
    handle._handle = SimpleNamespace(change=SimpleNamespace(remote=lambda: response))
    with pytest.raises(Unavailable, match="rollouts has no healthy replica"):
        await handle.call("change")
