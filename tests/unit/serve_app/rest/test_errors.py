from __future__ import annotations

import json

from serve_app.errors import BadRequest, ErrorKind, RateLimited, Unauthenticated
from serve_app.rest.errors import STATUS, error_body, error_headers


def test_every_kind_of_error_has_a_status() -> None:
    assert set(STATUS) == set(ErrorKind)
    assert all(400 <= status < 600 for status in STATUS.values())


def test_the_body_is_openais_error_object() -> None:
    assert json.loads(error_body(BadRequest("no", param="n"))) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "invalid_request"}
    }


def test_retry_after_is_whole_seconds_rounded_up() -> None:
    assert (b"retry-after", b"3") in error_headers(RateLimited("busy", retry_after_s=2.1))
    assert b"retry-after" not in dict(error_headers(RateLimited("busy")))


def test_a_missing_key_names_the_scheme() -> None:
    assert dict(error_headers(Unauthenticated("no")))[b"www-authenticate"] == b"Bearer"
