"""Forms: the fields of a multipart body that a Router must know; the body itself is relayed as it came."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.errors import BadRequest

WANTED = frozenset((b"model", b"stream", b"user"))
MAX_FIELD_BYTES = 1024
_TRUE = ("true", "1", "yes", "on")
# It writes a line for each odd byte, so that any client could fill the log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


def parse_form(raw: bytes, content_type: str) -> dict[str, Any]:
    """Return the fields ``model``, ``stream`` and ``user`` of a form, and under ``input`` a digest of it.

    The digest stands for the conversation: without it, all audio would be one.

    Raises:
        BadRequest: the boundary is missing, the body is malformed, or one of these fields is too long.
    """
    fields = _Fields()
    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise BadRequest("content-type: multipart/form-data must name its boundary", param="content-type")
        parser = MultipartParser(boundary, fields.callbacks())
        parser.write(raw)
        parser.finalize()
    except (ValueError, LookupError) as err:  # the parser's own, and those of names in an encoding of their own
        raise BadRequest("the body is no valid multipart/form-data") from err
    if not fields.is_whole:
        raise BadRequest("the body is no valid multipart/form-data: its last boundary is missing")
    found: dict[str, Any] = {name.decode(): _text(name, value) for name, value in fields.found.items()}
    if "stream" in found:
        found["stream"] = found["stream"].lower() in _TRUE
    return {**found, "input": hashlib.blake2b(raw, digest_size=12).hexdigest()}


def _text(name: bytes, value: bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as err:
        raise BadRequest(f"{name.decode()} must be UTF-8", param=name.decode()) from err


class _Fields:
    """What the parser calls. Of a field that is repeated the last one counts, as it does for engines."""

    def __init__(self) -> None:
        self.found: dict[bytes, bytearray] = {}
        self.is_whole = False
        self._header = bytearray()
        self._value = bytearray()
        self._name: bytes | None = None

    def callbacks(self) -> Any:
        """Return the callbacks under the parser's names."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._take_header,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_part_data": self._take_data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._name = None

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            options = parse_options_header(bytes(self._value))[1]
            name = options.get(b"name")
            if name in WANTED and b"filename" not in options:
                self._name = name
                self.found[name] = bytearray()
        self._header.clear()
        self._value.clear()

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is None:
            return
        value = self.found[self._name]
        if len(value) + end - start > MAX_FIELD_BYTES:
            name = self._name.decode()
            raise BadRequest(f"{name} must be at most {MAX_FIELD_BYTES} bytes long", param=name)
        value += data[start:end]

    def _end(self) -> None:
        self.is_whole = True
