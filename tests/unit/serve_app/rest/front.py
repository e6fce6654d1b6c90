"""The REST front over a gateway of fakes, and one request to it."""

from __future__ import annotations

from typing import Any

import httpx

from serve_app.gateway import Gateway
from serve_app.inference import Inference
from serve_app.rest.app import RestApp
from tests.unit.serve_app.fakes import (
    Answer,
    FakeRetriever,
    document,
    entry,
    gateway,
    snapshot,
)

CHAT = "/v1/chat/completions"
ASK = {"model": "chat", "messages": [{"role": "user", "content": "Why?"}]}


async def report() -> dict[str, str]:
    return {"all": "well"}


def ready(*answers: Answer, retriever: FakeRetriever | None = None, **changes: Any) -> Gateway:
    made = gateway(*answers, retriever=retriever)
    made.update(snapshot(entry("r1"), routing=document(**changes)))
    return made


async def request(made: Gateway, method: str, path: str, **more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(RestApp(Inference(made), report=report))
    async with httpx.AsyncClient(transport=transport, base_url="http://manta") as client:
        return await client.request(method, path, **more)


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"], error["param"]
