"""Uploads: the form of POST /v1/files."""

from __future__ import annotations

import re
from collections.abc import Mapping

from serve_app.documents.contract import Upload
from serve_app.errors import BadRequest
from serve_app.rest.forms import MAX_FIELD_BYTES, FormReader, field_text, form_type

OVERHEAD_BYTES = 64 * 1024  # of a form around its file
MAX_PARTS = 8
MAX_FILENAME_CHARS = 255
PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
FIELDS = frozenset({"purpose", "expires_after[anchor]", "expires_after[seconds]"})
LEAST_SECONDS, MOST_SECONDS = 3600, 30 * 86_400
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def parse_upload(raw: bytes, content_type: str) -> Upload:
    """Return the file and what is said of it.

    Raises:
        BadRequest: the form is malformed, or a field is missing, unknown or wrong; ``param`` names it.
    """
    kind, boundary = form_type(content_type)
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest("content-type must be multipart/form-data with a boundary", param="content-type")
    form = _Form()
    form.read(raw, boundary)
    if form.filename is None:
        raise BadRequest("file is missing, or was sent without a file name", param="file")
    fields = {name: field_text(value, name) for name, value in form.fields.items()}
    return Upload(_filename(form.filename), _purpose(fields), bytes(form.content), _expiry(fields))


def _purpose(fields: Mapping[str, str]) -> str:
    if (purpose := fields.get("purpose")) not in PURPOSES:
        raise BadRequest(f"purpose must be one of {', '.join(PURPOSES)}", param="purpose")
    return purpose


def _expiry(fields: Mapping[str, str]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    is_number = seconds is not None and seconds.isascii() and seconds.isdigit() and len(seconds) < 10
    if anchor != "created_at" or not is_number or not LEAST_SECONDS <= int(seconds or "0") <= MOST_SECONDS:
        what = f"anchor created_at and {LEAST_SECONDS} to {MOST_SECONDS} seconds"
        raise BadRequest(f"expires_after must have {what}", param="expires_after")
    return int(seconds or "0")


def _filename(raw: bytes) -> str:
    name = field_text(raw, "file").replace("\\", "/").rpartition("/")[2]
    if not 1 <= len(name) <= MAX_FILENAME_CHARS or UNPRINTABLE.search(name):
        raise BadRequest(f"the file's name must have 1 to {MAX_FILENAME_CHARS} printable characters", param="file")
    return name


class _Form(FormReader):
    """Keeps one file and a few short fields."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, bytearray] = {}
        self.filename: bytes | None = None
        self.content = bytearray()
        self._parts = 0
        self._name = ""
        self._target: bytearray | None = None

    def begin(self) -> None:
        self._target = None
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadRequest(f"the form has more than {MAX_PARTS} fields")

    def open(self, options: Mapping[bytes, bytes]) -> None:
        self._name = name = field_text(options.get(b"name", b""), "the form")
        if name == "file" and self.filename is None:
            self.filename, self._target = options.get(b"filename"), self.content
        elif name in FIELDS and name not in self.fields:
            self._target = self.fields[name] = bytearray()
        else:
            shown = name[:64]
            raise BadRequest(f"the form's field {shown!r} is not known here, or comes twice", param=shown)

    def end_headers(self) -> None:
        if self._target is None:
            raise BadRequest("a part of the form has no name")

    def take(self, data: bytes, start: int, end: int) -> None:
        if self._target is None:
            return
        self._target += memoryview(data)[start:end]
        if self._target is not self.content and len(self._target) > MAX_FIELD_BYTES:
            raise BadRequest(f"{self._name} must be at most {MAX_FIELD_BYTES} bytes long", param=self._name)
