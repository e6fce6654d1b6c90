from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import httpx
import pytest
from rich.console import Console

from serve_app.commands.ask import answer, default_model
from serve_app.commands.client import connect, get_json
from serve_app.errors import CommandError

CITATION = {"number": 1, "document_id": "a/b.md", "title": "B", "headings": ["One", "Two"], "start": 3, "end": 9}


def client(handle: Callable[[httpx.Request], httpx.Response]) -> httpx.Client:
    return httpx.Client(base_url="http://platform", transport=httpx.MockTransport(handle))


def sse(*events: dict[str, Any]) -> httpx.Response:
    text = "".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n"
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}], **more}


def ask(response: httpx.Response) -> tuple[str, list[dict[str, Any]]]:
    out = StringIO()
    console = Console(file=out, width=200)
    citations = answer(client(lambda _: response), "docs", "why?", console=console)
    return out.getvalue(), citations


def test_the_answer_is_followed_by_its_citations() -> None:
    printed, citations = ask(sse(delta("Because"), delta(" [x]"), {"choices": [{"delta": {}}], "citations": [CITATION]}))
    assert printed == "Because [x]\n  [1] B > Two (a/b.md:3-9)\n"
    assert citations == [CITATION]


def test_an_error_in_the_stream_is_told() -> None:
    with pytest.raises(CommandError, match="the replica failed"):
        ask(sse(delta("Bec"), {"error": {"message": "the replica failed"}}))


def test_a_refusal_is_told_in_the_platforms_words() -> None:
    with pytest.raises(CommandError, match="collection 'docs' is empty"):
        ask(httpx.Response(409, json={"error": {"message": "collection 'docs' is empty"}}))


def test_a_platform_that_is_not_running_is_said_with_the_command_that_starts_it() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(CommandError, match=r"not running at http://platform.*manta run"):
        get_json(client(refuse), "/v1/models")


@pytest.mark.parametrize(
    ("kinds", "found"),
    [(["model", "embedder", "pipeline"], "pipeline"), (["embedder", "model"], "model")],
    ids=["pipeline-first", "model-otherwise"],
)
def test_the_default_is_the_first_pipeline_or_model(kinds: list[str], found: str) -> None:
    cards = {"data": [{"id": kind, "kind": kind} for kind in kinds]}
    assert default_model(client(lambda _: httpx.Response(200, json=cards))) == found


def test_nothing_to_ask_is_an_error() -> None:
    with pytest.raises(CommandError, match="no pipeline and no model"):
        default_model(client(lambda _: httpx.Response(200, json={"data": []})))


def test_an_address_without_a_scheme_is_refused_with_an_example() -> None:
    with pytest.raises(CommandError, match=r"'localhost:8000' must start with http://"):
        connect("localhost:8000")


def test_a_platform_that_is_starting_is_said_to_be() -> None:
    with pytest.raises(CommandError, match="still starting"):
        get_json(client(lambda _: httpx.Response(404, text="Not Found")), "/v1/models")
