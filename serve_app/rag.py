"""The RAG chain: a pipeline called as if it were a chat model."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

from serve_app.config import PipelineConfig
from serve_app.contracts import Hit, SearchQuery
from serve_app.errors import BadRequest, UnknownModel
from serve_app.gateway import Call, Gateway, Reply, require_text
from serve_app.sse import ByteStream, EventBuffer, event_document, json_event

CHAT_PATH = "/v1/chat/completions"
Citations = Sequence[Mapping[str, Any]]


async def ask(gateway: Gateway, call: Call, pipeline: PipelineConfig) -> Reply:
    """Retrieve passages for the last user message, let the pipeline's model answer, and add ``citations``.

    Raises:
        BadRequest: the request is no chat, or its last message is not a user's text.
        EmptyCollection, EmbeddingMismatch: the collection cannot be searched.
    """
    if call.path.partition("?")[0] != CHAT_PATH:
        raise BadRequest(f"pipeline {pipeline.name!r} is called through {CHAT_PATH}", param="model")
    messages, question = _question(call.body)
    # The conversation's affinity is that of the request as sent: version and variant are chosen by the same key.
    version, prompt = gateway.view.version(pipeline, call.affinity)
    query = SearchQuery(version.collection, version.embedder, question, version.top_k)
    hits = await gateway.stages.retriever.search(query)
    # Templates are the operator's and may be slow; other callers' streams go on meanwhile.
    asked = {"role": "user", "content": await asyncio.to_thread(prompt.render, question, hits)}
    inner = _InnerCall.of(call, {**call.body, "model": version.model, "messages": [*messages[:-1], asked]})
    model = gateway.view.models.get(version.model)
    if model is None:  # gone while the passages were searched
        raise UnknownModel(pipeline.name)
    reply = await gateway.relay(inner, model)
    citations = [_citation(i, hit) for i, hit in enumerate(hits, start=1)]
    return dataclasses.replace(reply, body=_cited(reply, pipeline.name, citations), pipeline_version=version.name)


@dataclasses.dataclass(frozen=True, slots=True)
class _InnerCall(Call):
    outer_affinity: str = ""

    @classmethod
    def of(cls, call: Call, body: Mapping[str, Any]) -> _InnerCall:
        return cls(
            path=CHAT_PATH,
            body=body,
            raw=json.dumps(body).encode(),
            caller=call.caller,
            request_id=call.request_id,
            session_id=call.session_id,
            outer_affinity=call.affinity,
        )

    @property
    def affinity(self) -> str:
        return self.outer_affinity


def _question(body: Mapping[str, Any]) -> tuple[list[Any], str]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise BadRequest("messages must be a non-empty list of messages", param="messages")
    last = messages[-1]
    if last.get("role") != "user":
        raise BadRequest("the last message must be the user's question", param="messages")
    content = last.get("content")
    if isinstance(content, list):
        content = "\n".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    return messages, require_text(content, "messages")


def _citation(number: int, hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    return {
        "number": number,
        "document_id": chunk.document_id,
        "title": chunk.title,
        "headings": list(chunk.headings),
        "start": chunk.start,
        "end": chunk.end,
        "score": round(hit.score, 6),
        "text": chunk.text,
    }


def _cited(reply: Reply, model: str, citations: Citations) -> bytes | ByteStream:
    if not isinstance(reply.body, bytes):
        return cite_stream(reply.body, model, citations)
    try:
        document = json.loads(reply.body)
    except ValueError:
        return reply.body
    if not isinstance(document, dict):
        return reply.body
    return json.dumps({**document, "model": model, "citations": citations}).encode()


def cite_stream(chunks: ByteStream, model: str, citations: Citations) -> ByteStream:
    """Return a chat stream under the pipeline's name, with the citations on the chunk that ends the answer."""
    return _CitedStream(chunks, model, citations)


class _CitedStream:
    """An object rather than a generator: closing it closes the inner stream, also before anything was read."""

    def __init__(self, chunks: ByteStream, model: str, citations: Citations) -> None:
        self._chunks = chunks
        self._model = model
        self._citations = citations
        self._events = EventBuffer()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next whole events, rewritten; what never ended comes last, as an event of its own."""
        async for chunk in self._chunks:
            if events := self._events.feed(chunk):
                return b"".join(map(self._rewrite, events))
        if rest := self._events.flush():
            return self._rewrite(rest)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the inner stream."""
        await self._chunks.aclose()

    def _rewrite(self, event: bytes) -> bytes:
        document = event_document(event)
        if document is None or "error" in document:
            return event
        document["model"] = self._model
        if _ends_answer(document):
            document["citations"] = self._citations
        return json_event(document)


def _ends_answer(document: Mapping[str, Any]) -> bool:
    choices = document.get("choices")
    return isinstance(choices, list) and any(isinstance(c, dict) and c.get("finish_reason") for c in choices)
