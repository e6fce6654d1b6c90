"""The answer of a pipeline that found nothing and asks no model."""

from __future__ import annotations

from typing import Self

from serve_app.config_pipelines import PipelineVersionConfig
from serve_app.gateway import Call, Reply
from serve_app.rag.cited import CitedStream, Findings, cited_document
from serve_app.rag.wire import Refusal, WireForm

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
NO_VARIANT = "-"  # no variant has this name


def refused(call: Call, form: WireForm, *, version: PipelineVersionConfig, findings: Findings, created: int) -> Reply:
    """Return the version's refusal in the form of the request: whole, or as a stream."""
    refusal = Refusal(version.refusal, findings.pipeline, call.request_id, created, call.body)
    if call.body.get("stream") is True:
        events = b"".join(form.refusal_events(refusal))
        return Reply(EVENTS, CitedStream(_Once(events), form, findings), version.model, NO_VARIANT, version.name)
    return Reply(JSON, cited_document(form.refusal(refusal), form, findings), version.model, NO_VARIANT, version.name)


class _Once:
    """A stream of bytes that are all there."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._data:
            raise StopAsyncIteration
        data, self._data = self._data, b""
        return data

    async def aclose(self) -> None:
        self._data = b""
