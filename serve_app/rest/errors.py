"""REST's table of errors: kind -> HTTP status and OpenAI error object."""

from __future__ import annotations

import json
import math

from serve_app.errors import ErrorKind, MethodNotAllowed, PlatformError

STATUS: dict[ErrorKind, int] = {
    ErrorKind.BAD_REQUEST: 400,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.METHOD_NOT_ALLOWED: 405,
    ErrorKind.CONFLICT: 409,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.RATE_LIMITED: 429,
    ErrorKind.INTERNAL: 500,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.DEADLINE: 504,
}

_TYPE: dict[ErrorKind, str] = {
    ErrorKind.UNAUTHENTICATED: "authentication_error",
    ErrorKind.FORBIDDEN: "permission_error",
    ErrorKind.RATE_LIMITED: "rate_limit_error",
    ErrorKind.INTERNAL: "server_error",
    ErrorKind.UNAVAILABLE: "server_error",
    ErrorKind.DEADLINE: "server_error",
}


def error_body(error: PlatformError) -> bytes:
    """Return OpenAI's error object as JSON."""
    document = {
        "message": error.message,
        "type": _TYPE.get(error.kind, "invalid_request_error"),
        "param": error.param,
        "code": error.code,
    }
    return json.dumps({"error": document}).encode()


def error_headers(error: PlatformError) -> list[tuple[bytes, bytes]]:
    """Return the headers that go with an error."""
    headers = [(b"content-type", b"application/json")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(math.ceil(error.retry_after_s)).encode()))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if error.kind is ErrorKind.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers
