"""HttpAnswer: an HTTP/1.1 answer, parsed as its bytes come."""

from __future__ import annotations

from collections.abc import Mapping

import httptools

from loadtests.streaming import EventReader

MOST_BODY = 64 * 2**20


class AnswerBroken(Exception):
    """The answer ended early, or is no HTTP."""


class HttpAnswer:
    """What came so far; ``feed`` takes the rest.

    Attributes:
        headers: names in lower case.
        first_s, ended_s: when the body's first and the answer's last byte came; None: not yet.
        has_begun: whether any byte came.
        may_reuse: whether the connection takes another request.
    """

    def __init__(self, reader: EventReader | None) -> None:
        self.headers: dict[str, str] = {}
        self.first_s: float | None = None
        self.ended_s: float | None = None
        self.has_begun = False
        self.may_reuse = False
        self.status = 0
        self._reader = reader  # of a good answer that is a stream of events
        self._is_stream = False
        self._body: list[bytes] = []
        self._size = 0
        self._now_s = 0.0
        self._has_head = False
        self._is_done = False
        self._parser = httptools.HttpResponseParser(self)

    @property
    def body(self) -> bytes:
        """Return the body, unless it went to the reader."""
        return b"".join(self._body)

    def feed(self, data: bytes, now_s: float) -> bool:
        """Take bytes; none mean that the server left. Returns whether the answer is complete. Raises AnswerBroken."""
        self._now_s = now_s
        if not data:
            self._end_by_close()
        else:
            self.has_begun = True
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as err:
                raise AnswerBroken(f"the answer is not valid: {err.__context__ or err}") from err
        if self._is_done:
            self.ended_s = now_s
        return self._is_done

    def _end_by_close(self) -> None:
        is_sized = "content-length" in self.headers or "chunked" in self.headers.get("transfer-encoding", "")
        if not self._has_head or is_sized:
            raise AnswerBroken("the connection broke before the answer's end" if self.has_begun else "no answer came")
        self._is_done = True

    # httptools calls these

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Know what the body will be."""
        self._has_head = True
        self.status = self._parser.get_status_code()
        kind = self.headers.get("content-type", "")
        self._is_stream = self._reader is not None and self.status == 200 and kind.startswith("text/event-stream")

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self.first_s is None:
            self.first_s = self._now_s
        if self._is_stream and self._reader is not None:
            self._reader.feed(data, self._now_s)
            return
        self._size += len(data)
        if self._size > MOST_BODY:
            raise AnswerBroken(f"the answer has more than {MOST_BODY >> 20} MiB")
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Know that it is complete."""
        self._is_done = self.status >= 200  # 100 comes before the answer itself
        self.may_reuse = self._is_done and bool(self._parser.should_keep_alive())  # the parser knows it only here


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After asks for; a date there says nothing here."""
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None
