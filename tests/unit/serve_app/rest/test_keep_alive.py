from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import httpx2  # what both SDKs are made with
import openai
import pytest

from serve_app.affinity import affinity_key
from serve_app.contracts import Hit, SearchQuery
from serve_app.errors import EmptyCollection, RateLimited
from serve_app.gateway import Gateway
from serve_app.inference import Inference
from serve_app.rest.answer import COMMENT
from serve_app.rest.app import RestApp
from serve_app.sse import json_event
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import (
    SSE,
    FakeResponse,
    FakeRetriever,
    document,
    entry,
    gateway,
    leases_of,
    model,
    snapshot,
    until,
    upstream_of,
    woken_of,
)
from tests.unit.serve_app.rest.front import ASK, CHAT, ready

OFTEN_S = 0.005
MESSAGES = "/v1/messages"
STREAM = {**ASK, "stream": True}
EVENTS = (b"data: 1\n\n", b"data: [DONE]\n\n")


class Client:
    """A client that sends one request, keeps what it gets, and leaves when told to."""

    def __init__(self, made: Gateway, body: dict[str, Any], *, path: str = CHAT) -> None:
        self._parts = [{"type": "http.request", "body": json.dumps(body).encode()}]
        self.leaves = asyncio.Event()
        self.headers: dict[str, str] = {}
        self.status = 0
        self.got: list[bytes] = []
        self.is_over = False
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
        self.serving = asyncio.create_task(RestApp(Inference(made))(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if self._parts:
            return self._parts.pop()
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not self.status
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.got.append(message["body"])
            self.is_over = not message.get("more_body", False)

    @property
    def comments(self) -> int:
        return self.got.count(COMMENT)

    @property
    def events(self) -> list[bytes]:
        return [part for part in self.got if part not in (COMMENT, b"")]


class Slow:
    """A replica that begins its answer when told to."""

    def __init__(self, answer: FakeResponse | Exception | None = None) -> None:
        self._answer = answer or FakeResponse(EVENTS, content_type=SSE)
        self.may_answer = asyncio.Event()

    async def __call__(self) -> FakeResponse:
        await self.may_answer.wait()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def asleep(*answers: FakeResponse, **changes: Any) -> Gateway:
    """Return a gateway whose models have no replica yet."""
    made = gateway(*answers)
    made.update(snapshot(routing=document(keep_alive_s=OFTEN_S, **changes)))
    return made


async def test_a_stream_that_is_late_begins_with_comments() -> None:
    slow = Slow()
    client = Client(ready(slow, keep_alive_s=OFTEN_S), STREAM)
    await until(lambda: client.comments >= 2)
    assert (client.status, client.headers["content-type"], client.headers["cache-control"]) == (
        200,
        "text/event-stream",
        "no-cache",
    )
    assert (client.headers["x-manta-model"], client.headers["x-manta-variant"]) == ("chat", "stable")
    slow.may_answer.set()
    await client.serving
    assert (client.events, client.got[-1], client.is_over) == (list(EVENTS), b"", True)


async def test_a_stream_in_time_has_no_comments() -> None:
    made = ready(FakeResponse(EVENTS, content_type=SSE), keep_alive_s=60.0)
    client = Client(made, STREAM)
    await client.serving
    assert (client.got, leases_of(made)) == ([*EVENTS, b""], 0)


@pytest.mark.parametrize(
    ("body", "path", "keep_alive_s"),
    [(ASK, CHAT, OFTEN_S), (STREAM, "/v1/score", OFTEN_S), (STREAM, CHAT, 0.0), ({**ASK, "stream": "yes"}, CHAT, OFTEN_S)],
    ids=["no-stream", "no-such-endpoint", "switched-off", "odd-stream"],
)
async def test_other_answers_are_waited_for_in_silence(body: dict[str, Any], path: str, keep_alive_s: float) -> None:
    slow = Slow(FakeResponse())
    client = Client(ready(slow, keep_alive_s=keep_alive_s), body, path=path)
    await asyncio.wait([client.serving], timeout=10 * OFTEN_S)
    assert (client.status, client.got) == (0, [])
    slow.may_answer.set()
    await client.serving
    assert (client.status, client.events) == (200, [b'{"ok": true}'])


async def test_a_replica_that_wakes_answers_the_stream() -> None:
    made = asleep(FakeResponse(EVENTS, content_type=SSE))
    client = Client(made, STREAM)
    await until(lambda: client.comments)
    assert woken_of(made).calls == [("chat", "stable")]
    made.update(snapshot(entry("r1"), routing=made.view.document, version=2))
    await client.serving
    assert (client.events, leases_of(made)) == (list(EVENTS), 0)


TWO = (model(("canary", 50), ("stable", 50)),)
FIXED = tuple(each.model_copy(update={"fallback": False}) for each in TWO)


def user_of(made: Gateway, variant: str) -> str:
    """Return a user whose conversations belong to the variant."""
    view = made.view
    users = (f"u{i}" for i in range(100))
    keys = ((user, affinity_key(ANONYMOUS.tenant_name, {"user": user})) for user in users)
    return next(user for user, key in keys if view.variant(view.models["chat"], key) == variant)


async def test_the_variant_in_the_header_is_the_one_that_answers() -> None:
    made = asleep(FakeResponse(EVENTS, content_type=SSE), models=FIXED)
    client = Client(made, {**STREAM, "user": user_of(made, "canary")})
    await until(lambda: client.comments)
    # Another variant could take the request now, and would have if nobody had been told.
    made.update(snapshot(entry("r1", "stable"), routing=made.view.document, version=2))
    before = client.comments
    await until(lambda: client.comments > before + 2)
    assert (client.headers["x-manta-variant"], client.events, leases_of(made)) == ("canary", [], 0)
    made.update(snapshot(entry("r1", "stable"), entry("r2", "canary"), routing=made.view.document, version=3))
    await client.serving
    assert (upstream_of(made).asked, client.events) == (["http://r2"], list(EVENTS))


async def test_where_another_variant_may_stand_in_a_comment_names_the_one_that_answers() -> None:
    made = asleep(FakeResponse(EVENTS, content_type=SSE), models=TWO)
    client = Client(made, {**STREAM, "user": user_of(made, "canary")})
    await until(lambda: client.comments)
    made.update(snapshot(entry("r1", "stable"), routing=made.view.document, version=2))
    await client.serving
    assert (client.headers["x-manta-model"], client.headers.get("x-manta-variant")) == ("chat", None)
    assert client.events == [b": x-manta-variant: stable\n\n", *EVENTS]


async def test_a_variant_that_goes_meanwhile_ends_the_stream_with_an_error() -> None:
    made = asleep(models=FIXED)
    client = Client(made, STREAM)
    await until(lambda: client.comments)
    left = "stable" if client.headers["x-manta-variant"] == "canary" else "canary"
    made.update(snapshot(entry("r1", left), routing=document(models=(model((left, 100)),)), version=2))
    await client.serving
    [event] = client.events
    assert json.loads(event[6:])["error"]["code"] == "service_unavailable"
    assert (client.is_over, leases_of(made)) == (True, 0)


async def test_an_error_after_the_first_comment_is_an_event() -> None:
    slow = Slow(RateLimited("busy"))
    made = ready(slow, keep_alive_s=OFTEN_S)
    client = Client(made, STREAM)
    await until(lambda: client.comments)
    slow.may_answer.set()
    await client.serving
    [event] = client.events
    assert json.loads(event[6:])["error"] == {
        "message": "busy",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert (client.status, client.is_over, leases_of(made)) == (200, True, 0)


async def test_an_engine_that_does_not_stream_is_quoted_in_an_event() -> None:
    slow = Slow(FakeResponse((b'{"id": 1}',)))
    client = Client(ready(slow, keep_alive_s=OFTEN_S), STREAM)
    await until(lambda: client.comments)
    slow.may_answer.set()
    await client.serving
    assert (client.events, client.is_over) == ([b'data: {"id": 1}\n\n'], True)


@pytest.mark.parametrize("when", ["waiting", "streaming"])
async def test_a_client_that_leaves_a_late_stream_frees_everything(when: str) -> None:
    response = FakeResponse((b"data: 1\n\n", asyncio.Event()), content_type=SSE)
    slow = Slow(response)
    made = ready(slow, keep_alive_s=OFTEN_S)
    client = Client(made, STREAM)
    await until(lambda: client.comments)
    if when == "streaming":
        slow.may_answer.set()
        await until(lambda: client.events)
    assert leases_of(made) == 1
    client.leaves.set()
    await client.serving
    assert (leases_of(made), client.is_over, response.closed) == (0, False, int(when == "streaming"))


class SlowRetriever(FakeRetriever):
    """Finds its passages when told to."""

    def __init__(self, may_find: asyncio.Event, **more: Any) -> None:
        super().__init__(**more)
        self._may_find = may_find

    async def search(self, query: SearchQuery) -> list[Hit]:
        await self._may_find.wait()
        return await super().search(query)


async def test_retrieval_counts_into_the_wait() -> None:
    may_find = asyncio.Event()
    made = ready(FakeResponse(EVENTS, content_type=SSE), retriever=SlowRetriever(may_find), keep_alive_s=OFTEN_S)
    client = Client(made, {**STREAM, "model": "docs"})
    await until(lambda: client.comments)
    said = [client.headers[f"x-manta-{name}"] for name in ("model", "variant", "pipeline-version")]
    assert said == ["chat", "stable", "v1"]
    may_find.set()
    await client.serving
    assert client.events[0].startswith(b"data: 1")


async def test_retrieval_that_fails_late_ends_the_stream_with_an_error() -> None:
    may_find = asyncio.Event()
    made = ready(retriever=SlowRetriever(may_find, error=EmptyCollection("books")), keep_alive_s=OFTEN_S)
    client = Client(made, {**STREAM, "model": "docs"})
    await until(lambda: client.comments)
    may_find.set()
    await client.serving
    assert b'"collection_empty"' in client.events[0]


CHUNK = json_event(
    {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "chat",
        "choices": [{"index": 0, "delta": {"content": "hi"}}],
    }
)


class Later(Slow):
    """Answers once the comments have gone out."""

    async def __call__(self) -> FakeResponse:
        asyncio.get_running_loop().call_later(6 * OFTEN_S, self.may_answer.set)
        return await super().__call__()


async def test_openais_sdk_reads_past_the_comments() -> None:
    app = RestApp(Inference(ready(Later(FakeResponse((CHUNK, b"data: [DONE]\n\n"), content_type=SSE)), keep_alive_s=OFTEN_S)))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http:
        sdk = openai.AsyncOpenAI(base_url="http://manta/v1", api_key="none", http_client=http)
        stream = await sdk.chat.completions.create(model="chat", stream=True, messages=[{"role": "user", "content": "Why?"}])
        assert [chunk.choices[0].delta.content async for chunk in stream] == ["hi"]


async def test_openais_sdk_raises_what_comes_after_the_comments() -> None:
    app = RestApp(Inference(ready(Later(RateLimited("busy")), keep_alive_s=OFTEN_S)))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http:
        sdk = openai.AsyncOpenAI(base_url="http://manta/v1", api_key="none", http_client=http, max_retries=0)
        stream = await sdk.chat.completions.create(model="chat", stream=True, messages=[{"role": "user", "content": "Why?"}])
        with pytest.raises(openai.APIError, match="busy"):
            _ = [chunk async for chunk in stream]


STOP = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'


@pytest.mark.parametrize("fails", [False, True], ids=["answer", "error"])
async def test_anthropics_sdk_reads_past_the_comments(fails: bool) -> None:
    slow = Later(RateLimited("busy") if fails else FakeResponse((STOP,), content_type=SSE))
    app = RestApp(Inference(ready(slow, keep_alive_s=OFTEN_S)))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http:
        sdk = anthropic.AsyncAnthropic(base_url="http://manta", api_key="none", http_client=http, max_retries=0)
        stream = await sdk.messages.create(
            model="chat", max_tokens=5, stream=True, messages=[{"role": "user", "content": "Why?"}]
        )
        if fails:
            with pytest.raises(anthropic.APIStatusError, match="busy"):
                _ = [event async for event in stream]
        else:
            assert [event.type async for event in stream] == ["message_stop"]
