"""EventReader: server-sent events with the time of each, read with as little work as honest times need.

A token's time is when its bytes came, not when they were understood: whoever feeds the reader takes the time first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

# Text that is not empty. Inside a JSON text quotes are escaped, so no answer's own words look like this.
_TOKEN = re.compile(rb'"(?:content|text|reasoning|reasoning_content)"\s*:\s*"[^"]')
_CITATIONS = b'"citations"'  # their passages have a `text` of their own
DONE = b"[DONE]"
MOST_BUFFERED = 16 * 2**20


class NotEventsError(ValueError):
    """The bytes are no stream of events."""


class EventReader:
    """Reads the events of one answer.

    Attributes:
        stamps: when each event that holds text came.
        is_done: whether the stream said that it is complete.
        error: what an error event said.
        usage: what the last event says of the tokens.
        citations: how many passages a pipeline's answer rests on.
    """

    def __init__(self, *, keeps_text: bool = False) -> None:
        self.stamps: list[float] = []
        self.is_done = False
        self.error: str | None = None
        self.usage: dict[str, Any] = {}
        self.citations = 0
        self._kept: list[bytes] | None = [] if keeps_text else None
        self._rest = b""

    def feed(self, data: bytes, now_s: float) -> None:
        """Take bytes that came at ``now_s``. Raises NotEventsError or another ValueError."""
        if b"\r" in data or self._rest.endswith(b"\r"):
            data, self._rest = self._with_plain_ends(data), b""
        elif self._rest:
            data, self._rest = self._rest + data, b""
        *events, rest = data.split(b"\n\n")
        if len(rest) > MOST_BUFFERED:
            raise NotEventsError(f"an event has more than {MOST_BUFFERED >> 20} MiB")
        self._rest = rest
        for event in events:
            self._take(event, now_s)

    @property
    def coalesced(self) -> int:
        """Return how many pieces of text came in one read with the one before; their gaps are 0."""
        return sum(one == other for one, other in pairwise(self.stamps))

    def text(self) -> str:
        """Return the answer, if the reader was told to keep it; to be asked for when the clock no longer runs."""
        return "".join(_texts(self._kept or []))

    def _with_plain_ends(self, data: bytes) -> bytes:
        joined = self._rest + data
        held = b"\r" if joined.endswith(b"\r") else b""  # its line feed may come with the next bytes
        return joined.removesuffix(b"\r").replace(b"\r\n", b"\n") + held

    def _take(self, event: bytes, now_s: float) -> None:
        if _TOKEN.search(event) is not None and _CITATIONS not in event:
            self.stamps.append(now_s)
            if self._kept is not None:
                self._kept.append(event)
            return
        for data in _payloads(event):
            self._read(data, now_s)

    def _read(self, data: bytes, now_s: float) -> None:
        """Read an event that is no plain piece of text: there are few of them."""
        if data == DONE:
            self.is_done = True
            return
        document = json.loads(data)
        if not isinstance(document, dict):
            raise NotEventsError("an event holds no JSON object")
        if (error := document.get("error")) is not None:
            self.error = str(error.get("message", error) if isinstance(error, dict) else error)
        self.usage = document.get("usage") or self.usage
        self.citations = len(document.get("citations") or ()) or self.citations
        if next(_texts([b"data: " + data]), ""):
            self.stamps.append(now_s)


def _payloads(event: bytes) -> Iterator[bytes]:
    """Yield the data of an event; a comment has none."""
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    if lines:
        yield b"\n".join(lines).strip()


def _texts(events: list[bytes]) -> Iterator[str]:
    for event in events:
        for data in _payloads(event):
            choices = json.loads(data).get("choices") or [{}]
            delta = choices[0].get("delta") or choices[0]
            if text := delta.get("content") or delta.get("text"):
                yield str(text)
