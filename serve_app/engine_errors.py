"""What an engine's refusal becomes for a client: our kinds and codes, the engine's own words where they are harmless."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from serve_app.errors import (
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    ErrorKind,
    PlatformError,
    RateLimited,
    Unavailable,
    UnknownModel,
    UnknownRoute,
)

logger = logging.getLogger("ray.serve")

_REFUSED = "the engine refused this request"
_NO_ENDPOINT = "the engine of this model has no such endpoint"
_KINDS = {
    401: ErrorKind.INTERNAL,  # our own token was refused: nothing a client did
    404: ErrorKind.NOT_FOUND,
    408: ErrorKind.DEADLINE,
    413: ErrorKind.TOO_LARGE,
    429: ErrorKind.RATE_LIMITED,
    503: ErrorKind.UNAVAILABLE,
    504: ErrorKind.DEADLINE,
}
_ANSWERS: tuple[type[PlatformError], ...] = (
    BadRequest,
    UnknownModel,
    BodyTooLarge,
    RateLimited,
    Unavailable,
    DeadlineExceeded,
    PlatformError,
)
_CODES = {answer.kind: answer.code for answer in _ANSWERS}
_NOT_FOUND = "not_found"  # of what a request refers to, such as an earlier response; its model was found


@dataclass(frozen=True, slots=True)
class _Words:
    message: str = _REFUSED
    param: str | None = None
    code: str | None = None
    is_bare: bool = False  # the web framework's answer, not the engine's


class UpstreamRejected(PlatformError):
    """The engine answered with an error of its own."""

    def __init__(self, status: int, body: bytes) -> None:
        self.kind = _kind(status)
        # Our own token refused is no fault of the request either.
        self.is_engines_fault = status >= 500 or status == 401
        words = _words(body)
        if self.kind is ErrorKind.NOT_FOUND and words.is_bare:
            words = _Words(_NO_ENDPOINT, code=UnknownRoute.code)
        is_other = self.kind is ErrorKind.NOT_FOUND and words.param != "model"
        self.code = words.code or (_NOT_FOUND if is_other else _CODES[self.kind])
        if status >= 500 or self.kind is ErrorKind.INTERNAL:
            logger.error("the engine answered %d: %s", status, body[:2000])
            words = _Words("the engine failed to answer this request")
            self.code = _CODES[self.kind]
        super().__init__(words.message, param=words.param)


class Unreadable(PlatformError):
    """The engine answered with success and something that is no answer."""

    def __init__(self) -> None:
        super().__init__("the engine's answer could not be read")


def _kind(status: int) -> ErrorKind:
    if status < 400:  # a redirect, which would name the replica's address
        return ErrorKind.NOT_FOUND
    return _KINDS.get(status, ErrorKind.BAD_REQUEST if status < 500 else ErrorKind.INTERNAL)


def _words(body: bytes) -> _Words:
    """Read OpenAI's error object (vLLM's has its HTTP status for a code) or FastAPI's ``detail``."""
    try:
        document = json.loads(body)
    except ValueError:
        return _Words(is_bare=True)
    if not isinstance(document, dict):
        return _Words(is_bare=True)
    if "detail" in document:
        detail = document["detail"]
        return _Words(detail if isinstance(detail, str) else _REFUSED, is_bare=True)
    error = document.get("error", document)
    if isinstance(error, str):
        return _Words(error or _REFUSED)
    if not isinstance(error, dict):
        return _Words()
    message, param, code = (error.get(name) for name in ("message", "param", "code"))
    return _Words(
        message=message if isinstance(message, str) and message else _REFUSED,
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str) and not code.isdigit() else None,
    )
