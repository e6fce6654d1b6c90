"""How streams end by the APIs that have a last event: what ends without it was cut, however orderly its connection closed."""

from __future__ import annotations

import re

from serve_app.dialect import MESSAGES_PATH

_ERROR = re.compile(rb'(?:^|\n)(?:data:\s*\{"error"|event:\s*(?:error|response\.failed)\b)')
_DONE = re.compile(rb"(?:^|\n)data: ?\[DONE\]")
_ENDS = {
    "/v1/chat/completions": _DONE,
    "/v1/completions": _DONE,
    "/v1/responses": re.compile(rb"(?:^|\n)event: ?response\.(?:completed|incomplete|failed)\b"),
    MESSAGES_PATH: re.compile(rb"(?:^|\n)event: ?message_stop\b"),
}


def is_error_event(piece: bytes) -> bool:
    """Whether a piece of a stream holds an error event in place of an answer."""
    return _ERROR.search(piece) is not None


def holds_any_last_event(tail: bytes) -> bool:
    """Whether a stream's end holds the last event of some API."""
    return any(mark.search(tail) is not None for mark in _ENDS.values())


def has_last_event(path: str) -> bool:
    """Whether a whole stream of this path can be told from one that was cut."""
    return _endpoint(path) in _ENDS


def holds_last_event(path: str, tail: bytes) -> bool:
    """Whether whole events from a stream's end hold the one that ends it, or an error event in place of that."""
    mark = _ENDS.get(_endpoint(path))
    return mark is not None and (mark.search(tail) is not None or is_error_event(tail))


def _endpoint(path: str) -> str:
    return path.partition("?")[0].rstrip("/")
