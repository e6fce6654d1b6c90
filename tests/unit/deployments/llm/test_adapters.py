from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest

from deployments.llm.adapters import AdapterHost, adapter_of
from deployments.llm.engine import CURRENT_ADAPTER, LoadedAdapter, Receive, Scope, Send
from serve_app.contracts import AdapterTag
from tests.unit.deployments.llm.asgi import Exchange
from tests.unit.deployments.llm.shelves import Made, made
from tests.unit.serve_app.fakes import turns, until


class FakeApp:
    """An app that notes which adapter it saw, in a task of its own as engines' apps do, and ends when it may."""

    def __init__(self, *, may_end: bool = True) -> None:
        self.saw: list[LoadedAdapter | None] = []
        self.bodies: list[bytes] = []
        self.may_end = asyncio.Event()
        if may_end:
            self.may_end.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        self.bodies.append((await receive())["body"])
        await asyncio.create_task(self._look())
        await self.may_end.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def _look(self) -> None:
        self.saw.append(CURRENT_ADAPTER.get())


def asking(key: str = "a/v1", source: str = "src:a", revision: str = "r1", body: bytes = b"{}") -> Exchange:
    exchange = Exchange(body)
    exchange.scope["headers"] = [
        (b"x-manta-adapter", quote(key).encode()),
        (b"x-manta-adapter-source", quote(source).encode()),
        (b"x-manta-adapter-revision", revision.encode()),
    ]
    return exchange


def host(it: Made, app: FakeApp) -> AdapterHost:
    return AdapterHost(app, it.shelf)


def uses(it: Made) -> dict[str, int]:
    return {place.tag.key: place.uses for place in it.shelf._places.values()}


async def test_a_request_without_an_adapter_passes() -> None:
    it, app = made(), FakeApp()
    await Exchange().run(host(it, app))
    assert (app.saw, it.files.fetched) == ([None], [])


async def test_lifespan_passes() -> None:
    await host(made(), FakeApp())({"type": "lifespan"}, Exchange().receive, Exchange().send)


async def test_a_request_waits_for_its_adapter_and_its_body_is_whole() -> None:
    it, app = made(is_slow=True), FakeApp()
    running = asyncio.create_task(asking(body=b'{"model": "chat:a"}').run(host(it, app)))
    await until(lambda: it.files.fetched)
    await turns()
    assert app.saw == []
    it.files.may_fetch.set()
    assert (await running).body == b"ok"
    assert app.bodies == [b'{"model": "chat:a"}']
    assert [adapter.public_name for adapter in app.saw if adapter] == ["chat:a"]
    assert (uses(it), CURRENT_ADAPTER.get()) == ({"a/v1": 0}, None)


async def test_what_is_loaded_is_held_while_the_request_runs() -> None:
    it, app = made(), FakeApp(may_end=False)
    await it.use("a")
    running = asyncio.create_task(asking().run(host(it, app)))
    await until(lambda: app.saw)
    assert uses(it) == {"a/v1": 1}
    app.may_end.set()
    await running
    assert uses(it) == {"a/v1": 0}


async def test_a_request_that_fails_gives_its_adapter_back() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    it = made()
    with pytest.raises(RuntimeError):
        await asking().run(AdapterHost(broken, it.shelf))
    assert (uses(it), CURRENT_ADAPTER.get()) == ({"a/v1": 0}, None)


async def test_requests_of_several_adapters_see_each_their_own() -> None:
    it, app = made(), FakeApp()
    both = (asking(f"{key}/v1", f"src:{key}").run(host(it, app)) for key in "abab")
    await asyncio.gather(*both)
    assert sorted(adapter.key for adapter in app.saw if adapter) == ["a/v1", "a/v1", "b/v1", "b/v1"]


async def test_a_client_that_leaves_waits_no_longer() -> None:
    it, app = made(1), FakeApp()
    [held] = await it.hold("a")
    exchange = asking("b/v1", "src:b")
    running = asyncio.create_task(exchange.run(host(it, app)))
    await until(lambda: it.shelf._line)
    exchange.leaves.set()
    await running
    assert (exchange.sent, app.saw, len(it.shelf._line)) == ([], [], 0)
    it.shelf.give_back(held)


async def test_a_client_that_leaves_as_its_adapter_comes_holds_nothing() -> None:
    it, app = made(1), FakeApp()
    [held] = await it.hold("a")
    exchange = asking("b/v1", "src:b")
    running = asyncio.create_task(exchange.run(host(it, app)))
    await until(lambda: it.shelf._line)
    exchange.leaves.set()
    it.shelf.give_back(held)
    await running
    await until(lambda: "+b/v1" in it.engine.said)
    assert uses(it) == {"b/v1": 0}


async def test_the_app_hears_that_a_client_has_left_while_it_waited() -> None:
    it = made(is_slow=True)
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])

    exchange = asking()
    running = asyncio.create_task(exchange.run(AdapterHost(app, it.shelf)))
    await until(lambda: it.files.fetched)
    it.files.may_fetch.set()
    await until(it.shelf.keys)
    exchange.leaves.set()
    await running
    assert heard in ([], ["http.request", "http.disconnect"])


async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    it, app = made(1), FakeApp()
    await it.hold("a")
    running = asyncio.create_task(asking("b/v1", "src:b").run(host(it, app)))
    await until(lambda: it.shelf._line)
    running.cancel()
    await asyncio.wait([running])
    assert not it.shelf._line


async def test_what_cannot_be_loaded_is_refused_so_that_routers_can_tell() -> None:
    it, app = made(broken=("/secret/a",)), FakeApp()
    answer = await asking(source="/secret/a").run(host(it, app))
    error = json.loads(answer.body)["error"]
    assert (answer.status, answer.headers[b"x-manta-adapter-unavailable"]) == (503, b"1")
    assert (error["code"], error["message"]) == ("adapter_unavailable", "adapter 'a/v1' cannot be loaded by this replica")
    assert (app.saw, "secret" in answer.body.decode()) == ([], False)


async def test_an_engine_without_room_refuses_adapters_and_answers_others() -> None:
    app = FakeApp()
    alone = AdapterHost(app, None)
    assert (await asking().run(alone)).status == 503
    assert (await Exchange().run(alone)).status == 200


@pytest.mark.parametrize(
    "wrong",
    [{"key": "../../etc"}, {"key": "a"}, {"key": "a/v1/x"}, {"key": "A/v1"}, {"source": ""}, {"revision": ""}],
    ids=["path", "no-version", "too-many", "upper", "no-source", "no-revision"],
)
async def test_headers_that_no_router_sends_are_refused(wrong: dict[str, Any]) -> None:
    it = made()
    answer = await asking(**wrong).run(host(it, FakeApp()))
    assert (answer.status, it.files.fetched) == (503, [])


def test_a_source_arrives_as_it_was() -> None:
    source = "s3://bucket/Über 100%/x"
    assert adapter_of(asking(source=source).scope) == AdapterTag("a/v1", source, "r1")
