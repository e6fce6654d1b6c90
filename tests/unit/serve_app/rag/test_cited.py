"""Streams on their way back, however the network cuts them."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.rag.chain import FORMS
from serve_app.rag.citations import HEARD_CHARS, Citations
from serve_app.rag.cited import CitedStream, Findings
from serve_app.rag.overrides import SearchPlan
from serve_app.sse import error_event, event_document
from tests.unit.serve_app.fakes import HITS
from tests.unit.serve_app.rag.asking import (
    CHAT,
    CITATIONS,
    COMPLETIONS,
    MESSAGES,
    PATHS,
    RESPONSES,
    RETRIEVAL,
    STREAMS,
    Parts,
    citation,
    read,
)

FINDINGS = Findings("docs", "Why?", SearchPlan("books", 5), Citations(HITS, "Why?"))
ANSWERED = {"citations": CITATIONS, "retrieval": RETRIEVAL}


async def cite(data: bytes, *cuts: int, path: str = CHAT, findings: Findings = FINDINGS) -> bytes:
    ends = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    return await read(CitedStream(Parts([data[a:b] for a, b in pairwise(ends)]), FORMS[path], findings))


def with_members(path: str) -> list[bytes]:
    """Return the events of a stream as they should come out, made without the code under test."""
    made = []
    for event in STREAMS[path].removesuffix(b"\n\n").split(b"\n\n"):
        head, _, data = event.rpartition(b"data: ")
        document = json.loads(data) if data != b"[DONE]" else None
        if document is None or not _change(path, document):
            made.append(event)
        else:
            made.append(head + b"data: " + json.dumps(document).encode())
    return made


def _change(path: str, document: dict[str, Any]) -> bool:
    if path in (CHAT, COMPLETIONS):
        document["model"] = "docs"
        if any(choice["finish_reason"] for choice in document["choices"]):
            document.update(ANSWERED)
        return True
    if path == RESPONSES and "response" in document:
        document["response"]["model"] = "docs"
        if document["type"] == "response.completed":
            document["response"].update(ANSWERED)
        return True
    if document["type"] == "message_start":
        document["message"]["model"] = "docs"
        return True
    if document["type"] == "message_delta":
        document.update(ANSWERED)
        return True
    return False


@pytest.mark.parametrize("path", PATHS)
async def test_events_keep_their_names_and_all_that_is_not_ours(path: str) -> None:
    assert (await cite(STREAMS[path], path=path)).split(b"\n\n") == [*with_members(path), b""]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("separator", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 3000), max_size=12))
def test_citing_does_not_depend_on_how_the_stream_is_cut(path: str, separator: bytes, cuts: list[int]) -> None:
    data = STREAMS[path].replace(b"\n", separator)
    assert asyncio.run(cite(data, *cuts, path=path)) == asyncio.run(cite(data, path=path))


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_cut_into_bytes_is_cited(path: str) -> None:
    data = STREAMS[path]
    assert await cite(data, *range(len(data)), path=path) == await cite(data, path=path)


async def test_a_last_event_that_never_ends_is_cited_too() -> None:
    event = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    data = b"data: " + json.dumps(event).encode()
    assert event_document(await cite(data)) == {**event, "model": "docs", **ANSWERED}
    assert await cite(b'data: {"model') == b'data: {"model'


UNTOUCHED = {
    "error": error_event("broke"),
    "named-error": b'event: error\ndata: {"type": "error", "error": {"type": "x", "message": "y"}}\n\n',
    "ping": b": ping\n\n",
    "named-ping": b'event: ping\ndata: {"type": "ping"}\n\n',
    "cut": b"data: {oops\n\n",
    "list": b"data: [1]\n\n",
    "none": b"event: x\n\n",
}


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
@pytest.mark.parametrize("data", UNTOUCHED.values(), ids=UNTOUCHED.keys())
async def test_what_is_no_part_of_the_answer_passes_untouched(data: bytes, path: str) -> None:
    assert await cite(data, path=path) == data


ODD: dict[str, tuple[str, dict[str, Any]]] = {
    "choices-null": (CHAT, {"choices": None}),
    "choices-number": (CHAT, {"choices": 3}),
    "choice-number": (CHAT, {"choices": [4]}),
    "choices-object": (CHAT, {"choices": {}}),
    "delta-null": (CHAT, {"choices": [{"delta": None}]}),
    "content-number": (CHAT, {"choices": [{"delta": {"content": 3}}]}),
    "response-null": (RESPONSES, {"type": "response.completed", "response": None}),
    "failed": (RESPONSES, {"type": "response.failed", "response": {"output": 3}}),
    "delta-text": (MESSAGES, {"type": "message_delta", "delta": "x"}),
    "no-reason": (MESSAGES, {"type": "message_delta", "delta": {"stop_reason": None}}),
    "message-null": (MESSAGES, {"type": "message_start", "message": None}),
}


@pytest.mark.parametrize(("path", "event"), ODD.values(), ids=ODD.keys())
async def test_events_of_any_shape_pass_without_citations(path: str, event: dict[str, Any]) -> None:
    found = event_document(await cite(b"data: " + json.dumps(event).encode() + b"\n\n", path=path))
    assert found is not None
    assert "citations" not in json.dumps(found)


async def test_a_response_that_is_cut_off_at_its_limit_is_cited() -> None:
    event = {"type": "response.incomplete", "response": {"output": [{"type": "message", "content": 3}, {"type": "x"}]}}
    found = event_document(await cite(b"data: " + json.dumps(event).encode() + b"\n\n", path=RESPONSES))
    assert found is not None
    assert found["response"]["citations"] == CITATIONS


@pytest.mark.parametrize("path", PATHS)
async def test_quotes_follow_what_the_stream_has_said(path: str) -> None:
    text = "Owls are birds. It is é. Nobody knows."
    [hit] = [type(h)(type(h.chunk)("d#0", "d", 0, "D", (), text, 0, len(text)), 0.5) for h in HITS[:1]]
    findings = Findings("docs", "Why?", SearchPlan("books", 5), Citations([hit], "Why?"))
    out = await cite(STREAMS[path], path=path, findings=findings)
    assert json.dumps({"quote": "It is é.", "quote_start": 16, "quote_end": 24})[1:-1].encode() in out


async def test_an_endless_answer_is_heard_for_a_while_only() -> None:
    chunk = b'data: {"choices": [{"delta": {"content": "' + b"x" * 1000 + b'"}}]}\n\n'
    stream = CitedStream(Parts([chunk] * 50), FORMS[CHAT], FINDINGS)
    await read(stream)
    assert sum(map(len, stream._heard)) == HEARD_CHARS


def test_citations_have_offsets_of_the_quote_next_to_the_passage() -> None:
    assert FINDINGS.members("")["citations"] == [
        citation(1, "one", 0, score=0.5, headings=("A", "B")),
        citation(2, "two", 3, score=0.25),
    ]
