"""AnswerHead: status and headers of a replica's answer: bounded, and refused where they are none to what was asked."""

from __future__ import annotations

import re

MOST_BYTES = 64 * 1024  # of names and values, those of interim answers and trailers included
MOST_HEADERS = 200
MOST_INTERIM = 4
# What clients are sent as it is: longer, or with other characters, and a proxy in front would refuse the answer.
_CONTENT_TYPE = re.compile(rb"[\x20-\x7e]{1,256}")


class BadHead(Exception):
    """The head is no answer to a request of ours. The message says why."""


class AnswerHead:
    """What comes before an answer's body. Every method raises BadHead for what it refuses."""

    __slots__ = ("_bytes", "_count", "_headers", "_interim", "content_type", "has_length", "is_complete", "status")

    def __init__(self) -> None:
        self.status = 0
        self.content_type = ""
        self.has_length = False  # the body's end can be seen, other than by the connection's
        self.is_complete = False
        self._headers: dict[bytes, bytes] = {}
        self._bytes = self._count = self._interim = 0

    def get(self, name: bytes) -> bytes | None:
        """Return a header by its lower-case name, or None."""
        return self._headers.get(name)

    def add(self, name: bytes, value: bytes) -> None:
        """Take a header; one that comes after the head, as a trailer, is only counted."""
        self._count += 1
        self._bytes += len(name) + len(value)
        if self._count > MOST_HEADERS or self._bytes > MOST_BYTES:
            raise BadHead(f"more than {MOST_HEADERS} headers or {MOST_BYTES} bytes of them")
        if not self.is_complete:
            self._headers[name.lower()] = value

    def end(self, status: int, version: str) -> None:
        """Take the end of the headers: of an interim (1xx) answer they are forgotten, or else the head is complete."""
        if not version.startswith("1."):
            raise BadHead(f"HTTP {version}, where 1.1 was asked for")
        if status == 101 or not 100 <= status < 600:
            raise BadHead(f"status {status}")
        if status < 200:
            self._forget_interim()
            return
        self._refuse_coded()
        self.status = status
        self.content_type = self._read_content_type()
        self.has_length = b"content-length" in self._headers or b"transfer-encoding" in self._headers
        self.is_complete = True

    def _forget_interim(self) -> None:
        self._interim += 1
        if self._interim > MOST_INTERIM:
            raise BadHead(f"more than {MOST_INTERIM} interim answers")
        self._headers = {}

    def _refuse_coded(self) -> None:
        """Raise BadHead for a body that is not the plain bytes which were asked for: nobody on the way would undo it."""
        for name, plain in ((b"content-encoding", b"identity"), (b"transfer-encoding", b"chunked")):
            coding = self._headers.get(name, plain)
            if coding.strip().lower() != plain:
                raise BadHead(f"{name.decode()} {coding[:40]!r}, which nobody asked for")

    def _read_content_type(self) -> str:
        value = self._headers.get(b"content-type") or b"application/json"
        if not _CONTENT_TYPE.fullmatch(value):
            raise BadHead("a content-type that is too long, or no ASCII")
        kind, mark, rest = value.decode("ascii").partition(";")
        return kind.lower() + mark + rest
