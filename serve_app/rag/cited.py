"""An answer on its way back: under the pipeline's name, and with its citations where it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from serve_app.rag.citations import HEARD_CHARS, Citations
from serve_app.rag.overrides import SearchPlan
from serve_app.rag.wire import Document, WireForm
from serve_app.sse import ByteStream, EventBuffer, event_document, with_document


@dataclass(frozen=True, slots=True)
class Findings:
    """What a pipeline says of an answer besides the answer."""

    pipeline: str
    query: str
    plan: SearchPlan
    citations: Citations
    skipped: str | None = None  # why the answer does without passages

    def members(self, answer: str) -> Mapping[str, Any]:
        """Return the members that clients find next to the answer."""
        searched: dict[str, Any] = {"query": self.query, "collection": self.plan.collection, "top_k": self.plan.top_k}
        if self.skipped is not None:
            searched["skipped"] = self.skipped
        return {"citations": self.citations.of(answer), "retrieval": searched}


def cited(body: bytes | ByteStream, form: WireForm, findings: Findings) -> bytes | ByteStream:
    """Return an engine's answer with citations; one that is no JSON object is left as it is."""
    if not isinstance(body, bytes):
        return CitedStream(body, form, findings)
    try:
        document = json.loads(body)
    except ValueError:
        return body
    return cited_document(document, form, findings) if isinstance(document, dict) else body


def cited_document(document: Document, form: WireForm, findings: Findings) -> bytes:
    """Return a whole answer with citations, as JSON."""
    members = findings.members(form.text(document))
    return json.dumps({**document, "model": findings.pipeline, **members}).encode()


class CitedStream:
    """An object rather than a generator: closing it closes the inner stream, also before anything was read."""

    def __init__(self, chunks: ByteStream, form: WireForm, findings: Findings) -> None:
        self._chunks = chunks
        self._form = form
        self._findings = findings
        self._events = EventBuffer()
        self._heard: list[str] = []
        self._heard_chars = 0

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
        """Return the event; where it says nothing that we say otherwise, byte for byte."""
        document = event_document(event)
        if document is None or "error" in document:
            return event
        self._hear(self._form.said(document))
        named, ending = self._form.named(document), self._form.ending(document)
        if named is not None:
            named["model"] = self._findings.pipeline
        if ending is not None:
            ending.update(self._findings.members("".join(self._heard)))
        return event if named is None and ending is None else with_document(event, document)

    def _hear(self, said: str) -> None:
        if self._heard_chars < HEARD_CHARS:
            self._heard.append(said)
            self._heard_chars += len(said)
