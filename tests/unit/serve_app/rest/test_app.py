from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve_app.config import LimitsConfig
from serve_app.errors import EmptyCollection
from serve_app.inference import Inference
from serve_app.rest.app import RestApp
from tests.unit.serve_app.fakes import (
    BROKEN,
    SSE,
    FakeResponse,
    FakeRetriever,
    entry,
    gateway,
    leases_of,
    snapshot,
    turns,
    upstream_of,
)
from tests.unit.serve_app.rest.front import ASK, CHAT, error_of, ready, request


async def test_a_chat_is_relayed() -> None:
    made = ready(FakeResponse((b'{"id": 1}',)))
    response = await request(made, "POST", f"{CHAT}?trace=1", json=ASK, headers={"x-session-id": "s1"})
    assert (response.status_code, response.content) == (200, b'{"id": 1}')
    assert (response.headers["x-manta-model"], response.headers["x-manta-variant"]) == ("chat", "stable")
    [sent] = upstream_of(made).requests
    assert (sent.path, json.loads(sent.body)) == (f"{CHAT}?trace=1", ASK)


async def test_a_stream_is_relayed_unbuffered() -> None:
    made = ready(FakeResponse((b"data: 1\n\n", b"data: [DONE]\n\n"), content_type=SSE))
    response = await request(made, "POST", CHAT, json={**ASK, "stream": True})
    assert response.content == b"data: 1\n\ndata: [DONE]\n\n"
    headers = [response.headers[h] for h in ("content-type", "cache-control", "x-accel-buffering")]
    assert (headers, leases_of(made)) == ([SSE, "no-cache", "no"], 0)


async def test_a_stream_that_breaks_ends_in_an_error_event() -> None:
    response = await request(ready(FakeResponse((b"data: 1\n\n", BROKEN), content_type=SSE)), "POST", CHAT, json=ASK)
    first, last, _ = response.content.split(b"\n\n")
    assert (first, json.loads(last[6:])["error"]["code"]) == (b"data: 1", "stream_broken")


async def test_a_stream_that_breaks_tells_anthropics_clients_in_their_form() -> None:
    made = ready(FakeResponse((b"data: 1\n\n", BROKEN), content_type=SSE))
    response = await request(made, "POST", "/v1/messages", json={**ASK, "stream": True})
    assert response.content.split(b"\n\n")[1].startswith(b'event: error\ndata: {"type": "error"')


async def test_a_pipeline_is_called_like_a_model() -> None:
    response = await request(ready(FakeResponse((b"{}",))), "POST", CHAT, json={**ASK, "model": "docs"})
    assert (response.headers["x-manta-pipeline-version"], len(response.json()["citations"])) == ("v1", 2)


async def test_an_empty_collection_is_a_conflict() -> None:
    made = ready(retriever=FakeRetriever(error=EmptyCollection("books")))
    assert error_of(await request(made, "POST", CHAT, json={**ASK, "model": "docs"})) == (409, "collection_empty", None)


BAD: dict[str, tuple[bytes, tuple[int, str, str | None]]] = {
    "unknown-model": (b'{"model": "nope"}', (404, "model_not_found", "model")),
    "malformed": (b'{"model": ', (400, "invalid_request", None)),
    "not-an-object": (b'["chat"]', (400, "invalid_request", None)),
    "no-model": (b"{}", (400, "invalid_request", "model")),
    "model-no-text": (b'{"model": 3}', (400, "invalid_request", "model")),
    "surrogate-model": (b'{"model": "\\ud800"}', (404, "model_not_found", "model")),
    "embedder-for-chat": (b'{"model": "minilm"}', (400, "invalid_request", "model")),
}


@pytest.mark.parametrize(("body", "answer"), BAD.values(), ids=BAD.keys())
async def test_bad_requests_get_openais_error_object(body: bytes, answer: tuple[int, str, str | None]) -> None:
    assert error_of(await request(ready(), "POST", CHAT, content=body)) == answer


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("POST", "/v1/"),
        ("POST", "/v1/x/"),
        ("POST", "/v1/%2e%2e/metrics"),
        ("POST", "/v1/a%3Fb"),
        ("POST", "/v1/a%23b"),
        ("POST", "/v1//x"),
        ("POST", "/v1/load_lora_adapter"),
    ],
)
async def test_other_paths_are_unknown_and_reach_no_replica(method: str, path: str) -> None:
    made = ready()
    assert error_of(await request(made, method, path, json=ASK if method == "POST" else None)) == (404, "unknown_url", None)
    assert upstream_of(made).asked == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", CHAT, "POST"), ("DELETE", "/v1/models", "GET"), ("POST", "/admin/status", "GET"), ("OPTIONS", CHAT, "POST")],
)
async def test_a_wrong_method_is_told_the_right_one(method: str, path: str, allowed: str) -> None:
    response = await request(ready(), method, path)
    assert error_of(response) == (405, "method_not_allowed", None)
    assert response.headers["allow"] == allowed


async def test_any_endpoint_of_the_engine_can_be_reached() -> None:
    made = ready()
    for path in ("/v1/completions", "/v1/audio/transcriptions", "/v1/rerank"):
        assert (await request(made, "POST", path, json=ASK)).status_code == 200
    assert len(upstream_of(made).asked) == 3


async def test_a_body_too_large_by_its_length_is_refused() -> None:
    made = ready(limits=LimitsConfig(max_body_bytes=1024))
    assert error_of(await request(made, "POST", CHAT, content=b" " * 1025)) == (413, "request_too_large", None)


async def test_a_body_too_large_without_a_length_is_refused() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 512

    made = ready(limits=LimitsConfig(max_body_bytes=1024))
    assert error_of(await request(made, "POST", CHAT, content=parts())) == (413, "request_too_large", None)


@pytest.mark.parametrize("offered", ["id-1:a.b_c", "x" * 128])
async def test_a_harmless_request_id_is_kept(offered: str) -> None:
    made = ready()
    await request(made, "POST", CHAT, json=ASK, headers={"x-request-id": offered})
    assert upstream_of(made).requests[0].request_id == offered


@pytest.mark.parametrize("offered", [b"", b"x" * 129, b"a b", b"a\tb", b"\xe9", b'"'])
async def test_any_other_request_id_is_replaced(offered: bytes) -> None:
    made = ready()
    await request(made, "POST", CHAT, json=ASK, headers=[(b"x-request-id", offered)])
    made_up = upstream_of(made).requests[0].request_id
    assert (len(made_up), made_up.isalnum()) == (32, True)


async def test_an_internal_error_has_no_detail(caplog: pytest.LogCaptureFixture) -> None:
    made = ready(RuntimeError("secret at /srv/x.py, 10.0.0.1"))
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        response = await request(made, "POST", CHAT, json=ASK, headers={"x-request-id": "q7"})
    assert response.json()["error"] == {
        "message": "internal error; quote the request id when you report it",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }
    assert (response.status_code, "request q7 failed" in caplog.text, "10.0.0.1" in caplog.text) == (500, True, True)


@pytest.mark.parametrize("param", ["n", "best_of"])
async def test_a_request_for_very_many_answers_is_refused(param: str) -> None:
    made = gateway()
    made.update(snapshot(entry("r1")))
    body = {"model": "chat", "messages": [], param: 17}
    assert error_of(await request(made, "POST", "/v1/chat/completions", json=body)) == (400, "invalid_request", param)


async def test_probes_may_ask_with_head() -> None:
    made = gateway()
    made.update(snapshot())
    assert [(await request(made, "HEAD", path)).status_code for path in ("/healthz", "/readyz")] == [200, 503]


async def test_readiness_follows_the_replicas() -> None:
    made = gateway()
    made.update(snapshot())
    for path in ("/readyz", "/readyz?model=chat", "/readyz?model=docs"):
        response = await request(made, "GET", path)
        assert (error_of(response)[0], response.headers["retry-after"]) == (503, "5")
    made.update(snapshot(entry("r1"), version=2))
    for path in ("/readyz", "/readyz?model=chat", "/readyz?model=", "/healthz"):
        assert (await request(made, "GET", path)).status_code == 200
    assert error_of(await request(made, "GET", "/readyz?model=nope"))[0] == 404


def http_scope(path: str = CHAT) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}


class Client:
    """A client that sends one request and leaves when told to."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.leaves = asyncio.Event()
        self.got: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.got.append(message.get("body", message["type"]))


@pytest.mark.parametrize("is_streaming", [False, True], ids=["thinking", "streaming"])
async def test_a_client_that_leaves_cancels_the_work(is_streaming: bool) -> None:
    response = FakeResponse((b"data: 1\n\n", asyncio.Event()), content_type=SSE if is_streaming else "application/json")
    made = ready(response)
    client = Client(json.dumps(ASK).encode())
    serving = asyncio.create_task(RestApp(Inference(made))(http_scope(), client.receive, client.send))
    await turns(20)
    assert (leases_of(made), serving.done()) == (1, False)
    client.leaves.set()
    await serving
    assert (leases_of(made), response.closed) == (0, 1)
    assert client.got == (["http.response.start", b"data: 1\n\n"] if is_streaming else [])


async def test_a_client_that_leaves_in_its_request_gets_nothing() -> None:
    client = Client(b"")
    client._body = None
    client.leaves.set()
    await RestApp(Inference(ready()))(http_scope(), client.receive, client.send)
    assert client.got == []


async def test_an_answer_that_fails_after_its_start_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    made = ready(FakeResponse((b"data: 1\n\n", b"data: 2\n\n"), content_type=SSE))
    client = Client(json.dumps(ASK).encode())

    async def send(message: Any) -> None:
        if message.get("body") == b"data: 2\n\n":
            raise RuntimeError("odd")
        await client.send(message)

    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        await RestApp(Inference(made))(http_scope(), client.receive, send)
    assert (client.got, leases_of(made)) == (["http.response.start", b"data: 1\n\n"], 0)
    assert "failed after its answer had begun" in caplog.text


async def test_lifespan_is_answered_and_websockets_are_refused() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    app = RestApp(Inference(ready()))
    await app({"type": "lifespan"}, receive, send)
    await app({"type": "websocket"}, receive, send)
    assert sent == ["lifespan.shutdown.complete", "websocket.close"]
