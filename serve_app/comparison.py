"""Comparison: what two answers to one request say, and how far they agree."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from serve_app.contracts import Embedder
from serve_app.recording import Recording
from serve_app.sse import EventBuffer, event_document

if TYPE_CHECKING:
    from serve_app.rag.wire import WireForm


@functools.cache
def text_forms() -> Mapping[str, WireForm]:
    """Return how the answers of each endpoint that writes text are read."""
    from serve_app.rag.chain import FORMS  # not above: the chain imports the gateway, which has the shadows

    return FORMS


def has_text(path: str) -> bool:
    """Whether the path is that of an endpoint that writes text."""
    return path.partition("?")[0] in text_forms()


def texts(path: str, ours: Recording, theirs: Recording) -> tuple[str, str] | None:
    """Return what two answers say; None if one of them is incomplete, was too long to keep, or cannot be read.

    It takes long for long answers: not for the event loop.
    """
    form = text_forms()[path.partition("?")[0]]
    first, second = _text(form, ours), _text(form, theirs)
    return None if first is None or second is None else (first, second)


async def similarity(ours: str, theirs: str, embedder: Embedder | None) -> float:
    """Return 1 for equal texts, and for others their vectors' cosine, or 0 without an embedder."""
    if ours == theirs:
        return 1.0
    if embedder is None or not (ours.strip() and theirs.strip()):  # nothing has no meaning that could be like another
        return 0.0
    first, second = await embedder.embed([ours, theirs])
    return _cosine(first, second)


def _text(form: WireForm, recording: Recording) -> str | None:
    data = recording.data
    if data is None:
        return None
    return _streamed_text(form, data) if recording.is_stream else _whole_text(form, data)


def _whole_text(form: WireForm, data: bytes) -> str | None:
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return form.text(document) if isinstance(document, dict) else None


def _streamed_text(form: WireForm, data: bytes) -> str | None:
    """Return what the events say; None when the one that ends an answer is missing: it broke, or its client left."""
    buffer = EventBuffer()
    events = [*buffer.feed(data), buffer.flush()]
    documents = [document for event in events if (document := event_document(event)) is not None]
    if not any(form.ending(document) for document in documents):
        return None
    return "".join(map(form.said, documents))


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    lengths = math.hypot(*first) * math.hypot(*second)
    return sum(a * b for a, b in zip(first, second, strict=True)) / lengths if lengths else 0.0
