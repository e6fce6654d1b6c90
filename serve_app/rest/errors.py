"""REST's table of errors: kind -> HTTP status, and the type in OpenAI's and in Anthropic's error object."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from serve_app.dialect import is_anthropic
from serve_app.errors import ErrorKind, MethodNotAllowed, PlatformError


class ErrorForm(NamedTuple):
    """How a kind of error is told."""

    status: int
    openai: str
    anthropic: str


_INVALID = "invalid_request_error"
FORMS: dict[ErrorKind, ErrorForm] = {
    ErrorKind.BAD_REQUEST: ErrorForm(400, _INVALID, _INVALID),
    ErrorKind.UNAUTHENTICATED: ErrorForm(401, "authentication_error", "authentication_error"),
    ErrorKind.FORBIDDEN: ErrorForm(403, "permission_error", "permission_error"),
    ErrorKind.NOT_FOUND: ErrorForm(404, _INVALID, "not_found_error"),
    ErrorKind.METHOD_NOT_ALLOWED: ErrorForm(405, _INVALID, _INVALID),
    ErrorKind.CONFLICT: ErrorForm(409, _INVALID, _INVALID),
    ErrorKind.TOO_LARGE: ErrorForm(413, _INVALID, "request_too_large"),
    ErrorKind.RATE_LIMITED: ErrorForm(429, "rate_limit_error", "rate_limit_error"),
    ErrorKind.INTERNAL: ErrorForm(500, "server_error", "api_error"),
    ErrorKind.UNAVAILABLE: ErrorForm(503, "server_error", "overloaded_error"),
    ErrorKind.DEADLINE: ErrorForm(504, "server_error", "timeout_error"),
}
STATUS = {kind: form.status for kind, form in FORMS.items()}


def error_document(error: PlatformError, *, path: str = "", request_id: str | None = None) -> dict[str, Any]:
    """Return the error object that the SDKs of the path's clients read: Anthropic's for its endpoints, else OpenAI's."""
    form = FORMS[error.kind]
    if is_anthropic(path):
        return {"type": "error", "error": {"type": form.anthropic, "message": error.message}, "request_id": request_id}
    return {"error": {"message": error.message, "type": form.openai, "param": error.param, "code": error.code}}


def error_body(error: PlatformError, *, path: str = "", request_id: str | None = None) -> bytes:
    """Return the error object as JSON."""
    return json.dumps(error_document(error, path=path, request_id=request_id)).encode()


def error_event(error: PlatformError, *, path: str, request_id: str) -> bytes:
    """Return the error as the last event of a stream that has begun."""
    name = b"event: error\n" if is_anthropic(path) else b""
    return name + b"data: " + error_body(error, path=path, request_id=request_id) + b"\n\n"


def error_headers(error: PlatformError) -> list[tuple[bytes, bytes]]:
    """Return the headers that go with an error."""
    headers = [(b"content-type", b"application/json")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(math.ceil(error.retry_after_s)).encode()))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if error.kind is ErrorKind.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    headers += [(name.encode(), value.encode()) for name, value in error.headers]
    return headers
