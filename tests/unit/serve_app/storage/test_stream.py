from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from serve_app.errors import MissingWeights
from serve_app.storage.connection import in_words
from serve_app.storage.ranges import Span
from serve_app.storage.remote import RemoteFile
from serve_app.storage.stream import BrokenStreamError, read_range

FILE = RemoteFile("p/one", "one", '"etag"', 100, datetime(2030, 1, 1, tzinfo=UTC))


class Store:
    """Answers every GET alike."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self._answer = answer
        self.asked: dict[str, Any] = {}

    def get_object(self, **asked: Any) -> dict[str, Any]:
        self.asked = asked
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def refused(status: int, code: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


def read(answer: dict[str, Any] | Exception) -> bytes:
    return b"".join(read_range(Store(answer), "bucket", FILE, span=Span(10, 20), buffer_bytes=4))


def test_a_range_is_asked_for_of_exactly_this_object() -> None:
    store = Store({"ETag": "etag", "ContentLength": 10, "Body": BytesIO(b"0123456789")})
    chunks = list(read_range(store, "bucket", FILE, span=Span(10, 20), buffer_bytes=4))
    assert store.asked == {"Bucket": "bucket", "Key": "p/one", "Range": "bytes=10-19", "IfMatch": '"etag"'}
    assert chunks == [b"0123", b"4567", b"89"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refused(412), "'p/one' was changed or removed"),
        (refused(404), "'p/one' was changed or removed"),
        ({"ETag": '"another"', "ContentLength": 10, "Body": BytesIO()}, "'p/one' was changed or removed"),
        ({"ETag": '"etag"', "ContentLength": 100, "Body": BytesIO()}, "answers a range with 100 bytes for 10"),
        (refused(403, "AccessDenied"), "'p/one' cannot be downloaded: .*must allow s3:ListBucket and s3:GetObject"),
    ],
    ids=["another-etag", "gone", "no-if-match", "no-ranges", "forbidden"],
)
def test_what_another_attempt_cannot_mend_ends_the_download(answer: dict[str, Any] | Exception, message: str) -> None:
    with pytest.raises(MissingWeights, match=message):
        read(answer)


class Torn(BytesIO):
    """A connection that is reset."""

    def read(self, *_: Any) -> bytes:
        raise ConnectionResetError("reset by peer")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refused(503, "SlowDown"), "SlowDown"),
        (refused(429), "429|TooMany|error"),
        (EndpointConnectionError(endpoint_url="http://x"), "Could not connect .*; check AWS_ENDPOINT_URL"),
        ({"ETag": '"etag"', "ContentLength": 10, "Body": Torn()}, "reset by peer"),
        ({"ETag": '"etag"', "ContentLength": 10, "Body": BytesIO(b"012")}, "ended 7 bytes early"),
    ],
    ids=["slow-down", "too-many", "unreachable", "reset", "early-end"],
)
def test_what_may_pass_is_told_apart(answer: dict[str, Any] | Exception, message: str) -> None:
    with pytest.raises(BrokenStreamError, match=rf"'p/one'.*({message})"):
        read(answer)


def test_an_error_that_nobody_knows_a_fix_for_is_left_as_it_is() -> None:
    assert in_words(refused(500, "InternalError")) == str(refused(500, "InternalError"))
