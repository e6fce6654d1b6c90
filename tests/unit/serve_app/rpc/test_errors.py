from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import (
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    EmptyCollection,
    ErrorKind,
    MissingWeights,
    PlatformError,
    RateLimited,
    Unavailable,
    UnknownModel,
)
from serve_app.rest.errors import STATUS
from serve_app.rpc.errors import CODE, DETAILS_KEY, error_of_call, error_of_event, status_of


def test_every_error_kind_has_an_answer_on_both_fronts() -> None:
    assert set(CODE) == set(STATUS) == set(ErrorKind)


def details_of(error: PlatformError) -> dict[str, Any]:
    kinds: list[Any] = [getattr(error_details_pb2, name) for name in ("ErrorInfo", "RequestInfo", "BadRequest", "RetryInfo")]
    found: dict[str, Any] = {}
    for detail in status_of(error, "q1").details:
        [kind] = [kind for kind in kinds if detail.Is(kind.DESCRIPTOR)]
        found[kind.DESCRIPTOR.name] = kind.FromString(detail.value)
    return found


def test_a_bad_field_is_named() -> None:
    found = details_of(BadRequest("n must be at most 2", param="n"))
    assert set(found) == {"ErrorInfo", "RequestInfo", "BadRequest"}
    assert (found["ErrorInfo"].reason, found["ErrorInfo"].domain) == ("invalid_request", "manta")
    assert found["RequestInfo"].request_id == "q1"
    assert [(v.field, v.description) for v in found["BadRequest"].field_violations] == [("n", "n must be at most 2")]


def test_when_to_try_again_is_said() -> None:
    found = details_of(RateLimited("full", retry_after_s=1.5))
    assert set(found) == {"ErrorInfo", "RequestInfo", "RetryInfo"}
    assert found["RetryInfo"].retry_delay.ToMilliseconds() == 1500


def test_an_internal_error_says_nothing_of_itself() -> None:
    assert set(details_of(PlatformError("internal error"))) == {"ErrorInfo", "RequestInfo"}


def test_a_long_message_fits_into_the_trailers() -> None:
    error = BadRequest("\u20ac" * 100_000, param="messages")
    assert len(status_of(error, "q1").SerializeToString()) < 8000


def returned(error: PlatformError) -> PlatformError:
    status = status_of(error, "q1")
    trailers = [("x-other", "1"), (DETAILS_KEY, status.SerializeToString())]
    return error_of_call(CODE[error.kind], error.message, trailers)


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("no", param="messages[0].role"),
        UnknownModel("gpt"),
        BodyTooLarge(10),
        EmptyCollection("docs"),
        MissingWeights("none"),
        Unavailable("later", retry_after_s=0.25),
        PlatformError("internal error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_client_gets_the_class_that_was_raised(error: PlatformError) -> None:
    back = returned(error)
    assert type(back) is type(error)
    facts = [(e.kind, e.code, e.message, e.param, e.retry_after_s) for e in (back, error)]
    assert facts[0] == facts[1]


@given(
    message=st.text(max_size=900),
    param=st.none() | st.text(min_size=1, max_size=50),
    retry_after_s=st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000),
    kind=st.sampled_from(ErrorKind),
)
def test_nothing_of_an_error_is_lost_on_the_way(
    message: str, param: str | None, retry_after_s: float | None, kind: ErrorKind
) -> None:
    error = PlatformError(message or "x", param=param, retry_after_s=retry_after_s)
    error.kind, error.code = kind, "odd_code"
    back = returned(error)
    assert (back.kind, back.code, back.param, back.retry_after_s) == (kind, "odd_code", param, retry_after_s)
    assert back.message == error.message


def test_the_two_things_that_are_exhausted_are_told_apart() -> None:
    messages = ("SERVER: Received message larger than max (7 vs. 6)", "Request dropped due to backpressure")
    errors = [error_of_call(grpc.StatusCode.RESOURCE_EXHAUSTED, message, ()) for message in messages]
    assert [(error.kind, type(error)) for error in errors] == [
        (ErrorKind.TOO_LARGE, PlatformError),
        (ErrorKind.RATE_LIMITED, RateLimited),
    ]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.DATA_LOSS, PlatformError),
    ],
)
def test_a_status_that_the_platform_did_not_make_has_a_class_too(code: grpc.StatusCode, kind: type[PlatformError]) -> None:
    error = error_of_call(code, "socket closed", [(DETAILS_KEY, b"\xff\xff")])
    assert (type(error), error.message) == (kind, "socket closed")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "broke", "code": "stream_broken"}, (ErrorKind.UNAVAILABLE, "stream_broken", "broke")),
        ({"message": "too long", "code": 400, "param": "messages"}, (ErrorKind.BAD_REQUEST, "invalid_request", "too long")),
        (
            {"message": "CUDA at /usr/lib", "code": 500},
            (ErrorKind.INTERNAL, "internal_error", "the engine failed to answer this request"),
        ),
        ("odd", (ErrorKind.UNAVAILABLE, "stream_broken", "the stream of the answer broke; send the request again")),
    ],
    ids=["ours", "refused", "failed", "odd"],
)
def test_an_error_in_a_stream_is_an_error(error: object, expected: tuple[ErrorKind, str, str]) -> None:
    made = error_of_event(json.loads(json.dumps({"error": error})))
    assert (made.kind, made.code, made.message) == expected
