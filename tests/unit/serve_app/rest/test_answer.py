from __future__ import annotations

from typing import Any

import httpx
import pytest

from serve_app.config import LimitsConfig
from serve_app.engine_errors import UpstreamRejected
from serve_app.errors import EmptyCollection
from serve_app.gateway import Gateway
from serve_app.inference import Inference
from serve_app.rest.app import RestApp
from tests.unit.serve_app.fakes import FakeResponse, FakeRetriever, gateway, snapshot
from tests.unit.serve_app.rest.front import ASK, CHAT, ready, request

NOTHING = FakeRetriever(error=EmptyCollection("books"))
REFUSED = FakeResponse((b'{"error": {"message": "too long"}}',), status=400)


def said(response: httpx.Response) -> dict[str, str]:
    """Return what an answer says of who gave it."""
    return {name[8:]: value for name, value in response.headers.items() if name.startswith("x-manta-")}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/nope", 404),
        ("GET", "/v1/nothing", 404),
        ("DELETE", CHAT, 405),
        ("POST", CHAT, 400),
        ("POST", "/v1/messages", 400),
        ("GET", "/docs", 200),
        ("HEAD", "/healthz", 200),
    ],
)
async def test_every_answer_names_its_request_once(method: str, path: str, status: int) -> None:
    response = await request(ready(), method, path, headers={"x-request-id": "mine-1"})
    ids = [value for name, value in response.headers.multi_items() if name == "x-request-id"]
    assert (response.status_code, ids) == (status, ["mine-1"])


async def test_behind_serve_the_front_leaves_the_request_id_to_it() -> None:
    transport = httpx.ASGITransport(RestApp(Inference(ready()), names_requests=False))
    async with httpx.AsyncClient(transport=transport, base_url="http://manta") as client:
        assert "x-request-id" not in (await client.post(CHAT, json=ASK)).headers


async def test_errors_of_anthropics_endpoints_name_the_request_in_the_body_too() -> None:
    response = await request(ready(), "POST", "/v1/messages", content=b"{", headers={"x-request-id": "mine-1"})
    assert (response.status_code, response.json()["type"], response.json()["request_id"]) == (400, "error", "mine-1")


async def test_an_embedder_says_that_it_answered() -> None:
    response = await request(ready(), "POST", "/v1/embeddings", json={"model": "minilm", "input": "a"})
    assert said(response) == {"model": "minilm", "variant": "embedder"}


CHAT_ANSWERS: dict[str, tuple[Gateway, str, int, dict[str, str]]] = {
    "answer": (ready(), "chat", 200, {"model": "chat", "variant": "stable"}),
    "pipeline": (ready(), "docs", 200, {"model": "chat", "variant": "stable", "pipeline-version": "v1"}),
    "engine-refuses": (ready(REFUSED), "chat", 400, {"model": "chat", "variant": "stable"}),
    "pipelines-engine-refuses": (
        ready(REFUSED),
        "docs",
        400,
        {"model": "chat", "variant": "stable", "pipeline-version": "v1"},
    ),
    "nothing-to-search": (
        ready(retriever=FakeRetriever(error=EmptyCollection("books"))),
        "docs",
        409,
        {"pipeline-version": "v1"},
    ),
    "unknown-model": (ready(), "nope", 404, {}),
}


@pytest.mark.parametrize(("made", "name", "status", "told"), CHAT_ANSWERS.values(), ids=CHAT_ANSWERS.keys())
async def test_answers_and_errors_say_who_gave_them(made: Gateway, name: str, status: int, told: dict[str, str]) -> None:
    response = await request(made, "POST", CHAT, json={**ASK, "model": name})
    assert (response.status_code, said(response)) == (status, told)


async def test_an_error_says_whom_the_request_waited_for() -> None:
    made = gateway()
    made.update(snapshot(routing=ready(limits=LimitsConfig(max_waiting=0)).view.document))
    response = await request(made, "POST", CHAT, json=ASK)
    assert (response.status_code, said(response)) == (429, {"model": "chat", "variant": "stable"})


async def test_an_engine_that_fails_is_named() -> None:
    response = await request(ready(UpstreamRejected(500, b"")), "POST", CHAT, json=ASK)
    assert (response.status_code, said(response)) == (500, {"model": "chat", "variant": "stable"})


async def listed(**headers: str) -> dict[str, Any]:
    found: dict[str, Any] = (await request(ready(), "GET", "/v1/models", headers=headers)).json()
    return found


async def test_the_list_of_models_is_openais() -> None:
    found = await listed()
    assert (found["object"], set(found)) == ("list", {"object", "data"})


async def test_anthropics_clients_get_anthropics_list() -> None:
    found = await listed(**{"anthropic-version": "2023-06-01"})
    card = found["data"][0]
    assert (found["has_more"], found["first_id"], found["last_id"]) == (False, "chat", "minilm")
    assert [card[name] for name in ("type", "id", "display_name", "created_at")] == [
        "model",
        "chat",
        "chat",
        "1970-01-01T00:00:00Z",
    ]
