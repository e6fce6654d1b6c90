from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.engine_errors import UpstreamRejected
from serve_app.errors import ErrorKind

HIDDEN = "the engine failed to answer this request"
NO_ENDPOINT = "the engine of this model has no such endpoint"
REFUSED = "the engine refused this request"


def rejected(status: int, document: Any) -> UpstreamRejected:
    return UpstreamRejected(status, document if isinstance(document, bytes) else json.dumps(document).encode())


def vllm_error(status: int, message: str = "too long", param: str | None = "max_tokens") -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": param, "code": status}}


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, ErrorKind.BAD_REQUEST, "invalid_request"),
        (404, ErrorKind.NOT_FOUND, "not_found"),
        (413, ErrorKind.TOO_LARGE, "request_too_large"),
        (422, ErrorKind.BAD_REQUEST, "invalid_request"),
        (429, ErrorKind.RATE_LIMITED, "rate_limit_exceeded"),
    ],
)
def test_vllms_numeric_codes_become_our_words(status: int, kind: ErrorKind, code: str) -> None:
    error = rejected(status, vllm_error(status))
    assert (error.kind, error.code, error.message, error.param) == (kind, code, "too long", "max_tokens")


def test_a_model_that_the_engine_does_not_know_is_told_from_other_things() -> None:
    assert rejected(404, vllm_error(404, param="model")).code == "model_not_found"


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, ErrorKind.INTERNAL, "internal_error"),
        (500, ErrorKind.INTERNAL, "internal_error"),
        (501, ErrorKind.INTERNAL, "internal_error"),
        (503, ErrorKind.UNAVAILABLE, "service_unavailable"),
        (504, ErrorKind.DEADLINE, "deadline_exceeded"),
    ],
)
def test_failures_keep_their_details_to_the_log(status: int, kind: ErrorKind, code: str) -> None:
    error = rejected(status, vllm_error(status, message="Traceback: /usr/lib/x.py at 10.0.0.1"))
    assert (error.kind, error.code, error.message, error.param) == (kind, code, HIDDEN, None)


def test_a_redirect_names_no_address() -> None:
    error = rejected(307, b"")
    assert (error.kind, error.code, error.message) == (ErrorKind.NOT_FOUND, "unknown_url", NO_ENDPOINT)


@pytest.mark.parametrize("body", [b"Not Found", b'{"detail": "Not Found"}'], ids=["starlette", "fastapi"])
def test_an_endpoint_that_the_engine_does_not_have_is_an_unknown_url(body: bytes) -> None:
    error = rejected(404, body)
    assert (error.kind, error.code, error.message) == (ErrorKind.NOT_FOUND, "unknown_url", NO_ENDPOINT)


def test_a_word_for_a_code_is_kept() -> None:
    assert rejected(400, {"error": {"message": "m", "code": "context_length_exceeded"}}).code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("document", "message", "code"),
    [
        ({"detail": "too odd"}, "too odd", "invalid_request"),
        ({"detail": [{"loc": ["body"], "msg": "x"}]}, REFUSED, "invalid_request"),
        ({"error": "no such thing"}, "no such thing", "invalid_request"),
        ({"error": ""}, REFUSED, "invalid_request"),
        ({"error": 7}, REFUSED, "invalid_request"),
        ({"message": "flat", "code": 400}, "flat", "invalid_request"),
        ({"error": {"message": None, "param": 3, "code": "400"}}, REFUSED, "invalid_request"),
        ([], REFUSED, "invalid_request"),
        (b"<html>", REFUSED, "invalid_request"),
        (b"\xff", REFUSED, "invalid_request"),
    ],
    ids=["fastapi", "fastapi-list", "text", "empty", "number", "flat", "odd-fields", "list", "html", "no-utf-8"],
)
def test_answers_of_any_shape_become_an_error(document: object, message: str, code: str) -> None:
    error = rejected(400, document)
    assert (error.message, error.code, error.param) == (message, code, None)
