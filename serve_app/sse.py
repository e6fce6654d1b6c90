"""Server-sent events as bytes: where one ends, what it carries, and the event that reports an error."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any, Protocol, Self

from serve_app.dialect import is_anthropic

BLANK_LINE = b"\n\n"
DONE_EVENT = b"data: [DONE]\n\n"
MOST_EVENT_BYTES = 16 * 1024 * 1024  # of one that has not ended; images and logprobs of a whole answer are far below
_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_BLANK_LINES = re.compile(rb"\r?\n\r?\n")


class ByteStream(Protocol):
    """Bytes as they come. ``aclose`` frees everything behind the stream, also when nothing was read from it."""

    def __aiter__(self) -> Self:
        """Return the stream itself."""
        ...

    async def __anext__(self) -> bytes:
        """Return the next bytes."""
        ...

    async def aclose(self) -> None:
        """Free what the stream holds; a second call does nothing."""
        ...


class EventBuffer:
    """Cuts bytes into whole events, however the network has cut them."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that are complete now, each with the blank line that ends it.

        Raises:
            ValueError: one that has not ended has more than ``MOST_EVENT_BYTES``.
        """
        partial = self._partial
        # What was searched before is not searched again, but a blank line may have been cut in two.
        searched = max(0, len(partial) - 3)
        partial += data
        ends = [found.end() for found in _BLANK_LINES.finditer(partial, searched)]
        events = [bytes(partial[start:end]) for start, end in pairwise([0, *ends])]
        if ends:
            del partial[: ends[-1]]
        if len(partial) > MOST_EVENT_BYTES:
            raise ValueError(f"an event has more than {MOST_EVENT_BYTES} bytes")
        return events

    def flush(self) -> bytes:
        """Return the event that never ended, and forget it."""
        partial = bytes(self._partial)
        self._partial.clear()
        return partial


def begins_events(data: bytes) -> bool:
    """Whether a stream that begins so, with at least one byte, can be one of events; a part of its first line is enough."""
    if not data or _BOM.startswith(data):
        return bool(data)
    rest = data.removeprefix(_BOM).lstrip(b"\r\n")
    return any(rest.startswith(field) or field.startswith(rest) for field in _FIELDS)


def looks_like_json(body: bytes) -> bool:
    """Whether a body can be a JSON object or array, by how it begins and ends: reading it all would take its time."""
    ends = body[:64].lstrip()[:1], body[-64:].rstrip()[-1:]  # a copy of all of it would take its time as well
    return ends in ((b"{", b"}"), (b"[", b"]"))


def whole_length(data: bytes | bytearray, start: int = 0) -> int:
    """Return how many leading bytes are whole events, looking for the blank line that ends the last from ``start`` on."""
    # The second mark ends lines of both kinds: \r\n\r\n holds it as well.
    found = ((data.rfind(mark, start), len(mark)) for mark in (BLANK_LINE, b"\n\r\n"))
    return max((at + length for at, length in found if at >= 0), default=0)


def event_document(event: bytes) -> dict[str, Any] | None:
    """Return the JSON object that an event carries in its data, or None."""
    # A newline between two data lines is part of the data, and between JSON's tokens it is nothing.
    data = b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def json_event(document: dict[str, Any], *, name: str | None = None) -> bytes:
    """Return an event that carries a JSON object, with its name where an API's events have one."""
    head = f"event: {name}\n".encode() if name is not None else b""
    return head + b"data: " + json.dumps(document).encode() + b"\n\n"


def with_document(event: bytes, document: dict[str, Any]) -> bytes:
    """Return the event with another JSON object; its name and whatever else it says stay."""
    others = [line + b"\n" for line in event.splitlines() if line and not line.startswith(b"data:")]
    return b"".join(others) + json_event(document)


def error_event(message: str, *, path: str = "", code: str = "stream_broken", anthropic: str = "api_error") -> bytes:
    """Return an event with the error object that the SDKs of the path's clients raise; Anthropic's has a type for a code."""
    if is_anthropic(path):
        document = {"type": "error", "error": {"type": anthropic, "message": message}}
        return b"event: error\n" + json_event(document)
    return json_event({"error": {"message": message, "type": "server_error", "param": None, "code": code}})
