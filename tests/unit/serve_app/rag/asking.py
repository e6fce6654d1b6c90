"""Requests to a pipeline in every wire form, and answers as vLLM gives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from serve_app import rag
from serve_app.config import PipelineConfig, PipelineVersionConfig
from serve_app.gateway import Call, Gateway, Reply
from serve_app.sse import ByteStream, event_document
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import PIPELINE, FakeResponse, FakeRetriever, document, entry, gateway, snapshot

CHAT, RESPONSES, MESSAGES, COMPLETIONS = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"
PATHS = (CHAT, RESPONSES, MESSAGES, COMPLETIONS)
ASKED = "[1] D > B: one\n[2] D: two\nQ: Why?"  # the fakes' prompt over the fakes' passages
QUESTIONS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Why?"}]},
    RESPONSES: {"input": "Why?"},
    MESSAGES: {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 9},
    COMPLETIONS: {"prompt": "Why?"},
}


def citation(number: int, text: str, start: int, *, score: float, headings: Iterable[str] = ()) -> dict[str, Any]:
    """Return a citation of a passage that is quoted whole."""
    end = start + len(text)
    return {
        "number": number,
        "document_id": "d",
        "title": "D",
        "headings": list(headings),
        "start": start,
        "end": end,
        "score": score,
        "quote": text,
        "quote_start": start,
        "quote_end": end,
        "text": text,
    }


CITATIONS = [citation(1, "one", 0, score=0.5, headings=("A", "B")), citation(2, "two", 3, score=0.25)]
RETRIEVAL = {"query": "Why?", "collection": "books", "top_k": 5}


def _message(status: str, *texts: str) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "output_text", "text": text, "annotations": [], "logprobs": None} for text in texts]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": parts}


def _response(status: str, *output: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "created_at": 1,
        "model": "chat",
        "object": "response",
        "output": list(output),
        "parallel_tool_calls": True,
        "temperature": 0.0,
        "tool_choice": "none",
        "tools": [],
        "top_p": 1.0,
        "status": status,
        "usage": None,
    }


def _anthropic(*texts: str, stop_reason: str | None = None) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text} for text in texts],
        "model": "chat",
        "stop_reason": stop_reason,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }


def _choice(**more: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": None, **more}


WHOLE: dict[str, dict[str, Any]] = {
    CHAT: {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "chat",
        "choices": [_choice(message={"role": "assistant", "content": "It is."}, finish_reason="stop")],
    },
    RESPONSES: _response("completed", _message("completed", "It is.")),
    MESSAGES: _anthropic("It is.", stop_reason="end_turn"),
    COMPLETIONS: {
        "id": "c1",
        "object": "text_completion",
        "created": 1,
        "model": "chat",
        "choices": [_choice(text="It is.", finish_reason="stop")],
    },
}


def _chunk(choices: list[dict[str, Any]], kind: str = "chat.completion.chunk") -> dict[str, Any]:
    return {"id": "c1", "object": kind, "created": 1, "model": "chat", "choices": choices}


def _plain(*documents: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(d, ensure_ascii=False).encode() + b"\n\n" for d in documents) + b"data: [DONE]\n\n"


def _named(*documents: dict[str, Any]) -> bytes:
    events = (f"event: {d['type']}\ndata: {json.dumps(d, ensure_ascii=False)}\n\n" for d in documents)
    return "".join(events).encode()


_PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
_TEXT_PART = _message("completed", "It is é.")["content"][0]
_RESPONSE_EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": _response("in_progress")},
    {"type": "response.in_progress", "response": _response("in_progress")},
    {"type": "response.output_item.added", "output_index": 0, "item": _message("in_progress")},
    {"type": "response.content_part.added", **_PLACE, "part": {**_TEXT_PART, "text": ""}},
    {"type": "response.output_text.delta", **_PLACE, "delta": "It", "logprobs": []},
    {"type": "response.output_text.delta", **_PLACE, "delta": " is é.", "logprobs": []},
    {"type": "response.output_text.done", **_PLACE, "text": "It is é.", "logprobs": []},
    {"type": "response.content_part.done", **_PLACE, "part": _TEXT_PART},
    {"type": "response.output_item.done", "output_index": 0, "item": _message("completed", "It is é.")},
    {"type": "response.completed", "response": _response("completed", _message("completed", "It is é."))},
]
STREAMS: dict[str, bytes] = {
    CHAT: _plain(
        _chunk([_choice(delta={"role": "assistant", "content": ""})]),
        _chunk([_choice(delta={"content": "It"})]),
        _chunk([_choice(delta={"content": " is é.\n\n"})]),
        _chunk([_choice(delta={"content": ""}, finish_reason="stop")]),
        {**_chunk([]), "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
    ),
    RESPONSES: _named(*({**event, "sequence_number": i} for i, event in enumerate(_RESPONSE_EVENTS))),
    MESSAGES: _named(
        {"type": "message_start", "message": {**_anthropic(), "stop_sequence": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "It"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " is é."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 3, "output_tokens": 2}},
        {"type": "message_stop"},
    ),
    COMPLETIONS: _plain(
        _chunk([_choice(text="It")], "text_completion"),
        _chunk([_choice(text=" is é.", finish_reason="stop")], "text_completion"),
    ),
}


def chat_answer(text: object) -> FakeResponse:
    """Return a whole chat completion."""
    return FakeResponse((json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode(),))


def whole_answer(path: str) -> FakeResponse:
    """Return vLLM's whole answer on a path."""
    return FakeResponse((json.dumps(WHOLE[path]).encode(),))


def pipeline(**changes: Any) -> PipelineConfig:
    """Return the fakes' pipeline with changes to its only version."""
    version = {**PIPELINE.versions[0].model_dump(), **changes}
    return PipelineConfig(name=PIPELINE.name, versions=(PipelineVersionConfig.model_validate(version),))


def ready(*answers: Any, retriever: FakeRetriever | None = None, **version: Any) -> Gateway:
    """Return a gateway with one replica and a pipeline of this version."""
    made = gateway(*(answers or (whole_answer(CHAT),)), retriever=retriever)
    made.update(snapshot(entry("r1"), routing=document(pipelines=(pipeline(**version),))))
    return made


def asking(path: str = CHAT, **body: Any) -> Call:
    """Return a call that asks the pipeline why, unless the body says otherwise."""
    return Call(path, {"model": "docs", **QUESTIONS[path.partition("?")[0]], **body}, b"raw", ANONYMOUS, request_id="q1")


async def ask(made: Gateway, path: str = CHAT, **body: Any) -> Reply:
    """Ask the gateway's pipeline."""
    return await rag.ask(made, asking(path, **body), made.view.pipelines["docs"], clock=lambda: 7.0)


async def read(stream: ByteStream) -> bytes:
    """Return all that a stream yields."""
    return b"".join([part async for part in stream])


async def whole(reply: Reply) -> dict[str, Any]:
    """Return a whole answer's document."""
    assert isinstance(reply.body, bytes)
    answer = json.loads(reply.body)
    assert isinstance(answer, dict)
    return answer


async def events(reply: Reply) -> list[dict[str, Any]]:
    """Return the documents of a stream's events; ``[DONE]`` is none."""
    assert not isinstance(reply.body, bytes)
    found = map(event_document, (await read(reply.body)).split(b"\n\n"))
    return [event for event in found if event is not None]


class Parts:
    """A stream cut into given parts."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = iter(parts)
        self.closed = 0

    def __aiter__(self) -> Parts:
        return self

    async def __anext__(self) -> bytes:
        if (part := next(self._parts, None)) is None:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        self.closed += 1


def holders(path: str, found: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the objects with citations in a stream's events, where clients of the path look for them."""
    at: Callable[[Mapping[str, Any]], Any] = lambda e: e.get("response", {}) if path == RESPONSES else e  # noqa: E731
    return [at(event) for event in found if "citations" in at(event)]
