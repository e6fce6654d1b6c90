"""The RAG chain: a pipeline called as if it were a chat model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from serve_app.config import PipelineConfig
from serve_app.contracts import Hit, SearchQuery
from serve_app.errors import BadRequest
from serve_app.gateway import Call, Gateway, Reply, require_text

CHAT_PATH = "/v1/chat/completions"


async def ask(gateway: Gateway, call: Call, pipeline: PipelineConfig) -> Reply:
    """Retrieve passages for the last user message, let the pipeline's model answer, and add ``citations``.

    Raises:
        BadRequest: the request is no chat, or its last message is not a user's text.
        EmptyCollection, EmbeddingMismatch: the collection cannot be searched.
    """
    if call.path.partition("?")[0] != CHAT_PATH:
        raise BadRequest(f"pipeline {pipeline.name!r} is called through {CHAT_PATH}", param="model")
    messages, question = _question(call.body)
    version, prompt = gateway.view.version(pipeline, call.affinity)
    query = SearchQuery(version.collection, version.embedder, question, version.top_k)
    hits = await gateway.stages.retriever.search(query)
    asked = {"role": "user", "content": prompt.render(question, hits)}
    body = {**call.body, "model": version.model, "messages": [*messages[:-1], asked]}
    # The conversation's affinity is that of the request as sent: version and variant are chosen by the same key.
    inner = _InnerCall.of(call, body)
    reply = await gateway.relay(inner, gateway.view.models[version.model])
    citations = [_citation(i, hit) for i, hit in enumerate(hits, start=1)]
    return dataclasses.replace(reply, body=_cited(reply, pipeline.name, citations), pipeline_version=version.name)


@dataclasses.dataclass(frozen=True, slots=True)
class _InnerCall(Call):
    outer_affinity: str = ""

    @classmethod
    def of(cls, call: Call, body: Mapping[str, Any]) -> _InnerCall:
        raw = json.dumps(body).encode()
        return cls(
            path=CHAT_PATH,
            body=body,
            raw=raw,
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
        content = "\n".join(p.get("text", "") for p in content if isinstance(p, dict) and p.get("type") == "text")
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


def _cited(reply: Reply, model: str, citations: Sequence[Mapping[str, Any]]) -> bytes | AsyncIterator[bytes]:
    if isinstance(reply.body, bytes):
        document = json.loads(reply.body)
        return json.dumps({**document, "model": model, "citations": citations}).encode()
    return cite_stream(reply.body, model, citations)


async def cite_stream(
    chunks: AsyncIterator[bytes], model: str, citations: Sequence[Mapping[str, Any]]
) -> AsyncIterator[bytes]:
    """Yield a chat stream under the pipeline's name, with the citations on the chunk that ends the answer."""
    buffer = b""
    try:
        async for chunk in chunks:
            buffer += chunk
            *events, buffer = buffer.split(b"\n\n")
            for event in events:
                yield _rewrite(event, model, citations) + b"\n\n"
        if buffer:
            yield buffer
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]


def _rewrite(event: bytes, model: str, citations: Sequence[Mapping[str, Any]]) -> bytes:
    if not event.startswith(b"data: {"):
        return event
    document = json.loads(event[6:])
    if "error" in document:
        return event
    document["model"] = model
    if any(choice.get("finish_reason") for choice in document.get("choices", ())):
        document["citations"] = citations
    return b"data: " + json.dumps(document).encode()
