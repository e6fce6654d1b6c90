"""Forms: the fields of a multipart body that a Router must know; the body itself is relayed as it came."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.errors import BadRequest

WANTED = frozenset((b"model", b"stream", b"user"))
MAX_FIELD_BYTES = 1024
_TRUE = ("true", "1", "yes", "on")
# It writes a line for each odd byte, so that any client could fill the log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class FormReader:
    """What the parser calls: collects the header of each part and hands on its Content-Disposition."""

    def __init__(self) -> None:
        self._is_whole = False
        self._header = bytearray()
        self._value = bytearray()

    def read(self, raw: bytes, boundary: bytes) -> None:
        """Read a whole form. Raises BadRequest when it is malformed."""
        try:
            parser = MultipartParser(boundary, self._callbacks())
            parser.write(raw)
            parser.finalize()
        except (ValueError, LookupError) as err:  # the parser's own, and those of names in an encoding of their own
            raise BadRequest("the body is no valid multipart/form-data") from err
        if not self._is_whole:
            raise BadRequest("the body is no valid multipart/form-data: its last boundary is missing")

    def begin(self) -> None:
        """Begin a part."""

    def open(self, options: Mapping[bytes, bytes]) -> None:
        """Take what a part's Content-Disposition says: ``name`` and, of a file, ``filename``."""

    def end_headers(self) -> None:
        """Go on to a part's data."""

    def take(self, data: bytes, start: int, end: int) -> None:
        """Take some of a part's data."""

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self.begin,
            "on_header_field": self._take_header,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self.end_headers,
            "on_part_data": self.take,
            "on_end": self._end,
        }

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self.open(parse_options_header(bytes(self._value))[1])
        self._header.clear()
        self._value.clear()

    def _end(self) -> None:
        self._is_whole = True


def form_type(content_type: str) -> tuple[bytes, bytes]:
    """Return the media type and the boundary in a content type; empty where there is none. Raises BadRequest."""
    try:
        kind, options = parse_options_header(content_type)
    except (ValueError, LookupError) as err:
        raise BadRequest("the body is no valid multipart/form-data: its content-type cannot be read") from err
    return kind, options.get(b"boundary", b"")


def parse_form(raw: bytes, content_type: str) -> dict[str, Any]:
    """Return the fields ``model``, ``stream`` and ``user`` of a form, and under ``input`` a digest of it.

    The digest stands for the conversation: without it, all audio would be one.

    Raises:
        BadRequest: the boundary is missing, the body is malformed, or one of these fields is too long.
    """
    _, boundary = form_type(content_type)
    if not boundary:
        raise BadRequest("content-type: multipart/form-data must name its boundary", param="content-type")
    fields = _Fields()
    fields.read(raw, boundary)
    found: dict[str, Any] = {name.decode(): field_text(value, name.decode()) for name, value in fields.found.items()}
    if "stream" in found:
        found["stream"] = found["stream"].lower() in _TRUE
    return {**found, "input": hashlib.blake2b(raw, digest_size=12).hexdigest()}


def field_text(value: bytes | bytearray, name: str) -> str:
    """Return a field's text. Raises BadRequest naming it."""
    try:
        return value.decode()
    except UnicodeDecodeError as err:
        raise BadRequest(f"{name} must be UTF-8", param=name) from err


class _Fields(FormReader):
    """Of a field that is repeated the last one counts, as it does for engines."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[bytes, bytearray] = {}
        self._name: bytes | None = None

    def begin(self) -> None:
        self._name = None

    def open(self, options: Mapping[bytes, bytes]) -> None:
        name = options.get(b"name")
        if name in WANTED and b"filename" not in options:
            self._name = name
            self.found[name] = bytearray()

    def take(self, data: bytes, start: int, end: int) -> None:
        if self._name is None:
            return
        value = self.found[self._name]
        if len(value) + end - start > MAX_FIELD_BYTES:
            name = self._name.decode()
            raise BadRequest(f"{name} must be at most {MAX_FIELD_BYTES} bytes long", param=name)
        value += data[start:end]
