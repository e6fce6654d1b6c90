from __future__ import annotations

import json
import socket
from collections.abc import Callable

import httpx
import pytest

from serve_app.contracts import EmbeddingFingerprint
from serve_app.errors import BadRequest, DeadlineExceeded, PlatformError, Unauthenticated, Unavailable
from serve_app.ingest.client import TRIES, EmbeddingClient

EMBEDDING = {"model": "org/fake", "dimension": 2, "normalized": True}
Answer = Callable[[httpx.Request], httpx.Response]

FORM = {"encoding_format": "float", "truncate_prompt_tokens": -1}


def client(answer: Answer, *, pauses: list[float] | None = None, api_key: str | None = None) -> EmbeddingClient:
    async def sleep(pause_s: float) -> None:
        if pauses is not None:
            pauses.append(pause_s)

    transport = httpx.MockTransport(answer)
    return EmbeddingClient("http://manta.test/v1/", "mini", api_key=api_key, transport=transport, sleep=sleep)


def error(status: int, message: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message}}, headers=headers)


async def test_describe_asks_for_the_embedder_by_name() -> None:
    seen: list[tuple[str, str, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, str(request.url), request.headers.get("authorization")))
        return httpx.Response(200, json={"id": "mini", "embedding": EMBEDDING})

    async with client(answer, api_key="k") as embedder:
        assert await embedder.describe() == EmbeddingFingerprint("org/fake", 2, normalized=True)
    assert seen == [("GET", "http://manta.test/v1/models/mini", "Bearer k")]


async def test_vectors_are_put_in_the_order_of_the_texts() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content) == {"model": "mini", "input": ["a", "bb"], **FORM}
        data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
        return httpx.Response(200, json={"data": data})

    async with client(answer) as embedder:
        assert await embedder.embed(["a", "bb"]) == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "response", [error(404, "unknown"), httpx.Response(200, json={"id": "chat"})], ids=["unknown", "not-an-embedder"]
)
async def test_a_name_that_is_no_embedder_is_named(response: httpx.Response) -> None:
    async with client(lambda _: response) as embedder:
        with pytest.raises(BadRequest, match="serves no embedder 'mini'"):
            await embedder.describe()


@pytest.mark.parametrize(
    ("response", "kind", "message"),
    [
        (error(400, "too odd"), BadRequest, "answered 400: too odd"),
        (error(401, "no key"), Unauthenticated, "no key"),
        (error(500, "internal"), Unavailable, "answered 500"),
        (httpx.Response(404, text="<html>"), Unavailable, "is this a Manta platform"),
        (httpx.Response(200, json={"data": []}), Unavailable, "one vector per text"),
        (httpx.Response(200, text="hello"), Unavailable, "is this a Manta platform"),
    ],
    ids=["bad-request", "no-key", "internal", "other-server", "too-few", "not-json"],
)
async def test_answers_that_are_no_vectors_say_what_is_wrong(
    response: httpx.Response, kind: type[PlatformError], message: str
) -> None:
    async with client(lambda _: response) as embedder:
        with pytest.raises(kind, match=message):
            await embedder.embed(["a"])


async def test_a_busy_platform_is_asked_again_after_the_pause_it_names() -> None:
    responses = iter([error(503, "busy"), error(429, "busy", **{"retry-after": "3"}), error(503, "busy")])
    pauses: list[float] = []
    ready = httpx.Response(200, json={"embedding": EMBEDDING})
    async with client(lambda _: next(responses, ready), pauses=pauses) as embedder:
        await embedder.describe()
    assert pauses == [0.5, 3.0, 2.0]


async def test_a_platform_that_stays_busy_is_given_up() -> None:
    pauses: list[float] = []
    async with client(lambda _: error(503, "still busy"), pauses=pauses) as embedder:
        with pytest.raises(Unavailable, match="still busy"):
            await embedder.embed(["a"])
    assert len(pauses) == TRIES - 1


async def test_no_platform_names_the_command_that_starts_it() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        async with EmbeddingClient(url, "mini") as embedder:
            with pytest.raises(Unavailable, match=rf"not running at {url}; start it with `manta run`"):
                await embedder.describe()


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(httpx.ReadTimeout("slow"), DeadlineExceeded), (httpx.ReadError("cut"), Unavailable)],
    ids=["timeout", "connection-cut"],
)
async def test_network_failures_become_platform_errors(failure: httpx.HTTPError, kind: type[PlatformError]) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise failure

    async with client(answer) as embedder:
        with pytest.raises(kind, match=r"manta\.test"):
            await embedder.embed(["a"])
