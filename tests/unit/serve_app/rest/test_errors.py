from __future__ import annotations

import json

import pytest

from serve_app.errors import BadRequest, ErrorKind, PlatformError, RateLimited, Unauthenticated
from serve_app.rest.errors import FORMS, STATUS, error_body, error_event, error_headers

MESSAGES = "/v1/messages"


def test_every_kind_of_error_has_a_form() -> None:
    assert set(FORMS) == set(STATUS) == set(ErrorKind)
    assert all(400 <= status < 600 for status in STATUS.values())


def test_the_body_is_openais_error_object() -> None:
    assert json.loads(error_body(BadRequest("no", param="n"))) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "invalid_request"}
    }


@pytest.mark.parametrize("path", [MESSAGES, f"{MESSAGES}/count_tokens", f"{MESSAGES}/nope"])
def test_anthropics_clients_get_anthropics_error_object(path: str) -> None:
    assert json.loads(error_body(RateLimited("no"), path=path, request_id="q1")) == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "no"},
        "request_id": "q1",
    }


@pytest.mark.parametrize("path", ["/v1/messages2", "/v1/chat/completions", "/V1/messages"])
def test_other_paths_get_openais(path: str) -> None:
    assert set(json.loads(error_body(PlatformError("no"), path=path))) == {"error"}


def test_an_error_in_a_stream_is_an_event_of_the_clients_kind() -> None:
    openai = error_event(BadRequest("no"), path="/v1/chat/completions", request_id="q1")
    anthropic = error_event(BadRequest("no"), path=MESSAGES, request_id="q1")
    assert (openai[:7], openai[-2:], anthropic[:20]) == (b"data: {", b"\n\n", b"event: error\ndata: {")


def test_retry_after_is_whole_seconds_rounded_up() -> None:
    assert (b"retry-after", b"3") in error_headers(RateLimited("busy", retry_after_s=2.1))
    assert b"retry-after" not in dict(error_headers(RateLimited("busy")))


def test_a_missing_key_names_the_scheme() -> None:
    assert dict(error_headers(Unauthenticated("no")))[b"www-authenticate"] == b"Bearer"
