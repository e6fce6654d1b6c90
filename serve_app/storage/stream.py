"""One range of an object as a stream, asked for again where it breaks off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from serve_app.errors import MissingWeights
from serve_app.storage.connection import boto_errors, in_words, status
from serve_app.storage.ranges import Span
from serve_app.storage.remote import RemoteFile

CHANGED = (404, 412)  # gone, or another ETag than the one listed
MAY_PASS = (408, 429)


class BrokenStreamError(Exception):
    """A stream that has ended early, or a question that may be asked again."""


def read_range(s3: Any, bucket: str, file: RemoteFile, *, span: Span, buffer_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a range of exactly this object.

    Raises:
        MissingWeights: the object changed since it was listed, or may not be read.
        BrokenStreamError: the connection or the endpoint failed.
    """
    try:
        answer = s3.get_object(Bucket=bucket, Key=file.key, Range=f"bytes={span.start}-{span.end - 1}", IfMatch=file.etag)
    except boto_errors() as err:
        raise _translated(err, file) from err
    with closing(answer["Body"]) as body:
        if answer["ETag"].strip('"') != file.etag.strip('"'):  # an endpoint that does not know If-Match
            raise _changed(file)
        if answer["ContentLength"] != span.size:
            got = f"{answer['ContentLength']} bytes for {span.size}"
            raise MissingWeights(f"object {file.key!r}: the endpoint answers a range with {got}", param="source")
        yield from _chunks(body, file, span=span, buffer_bytes=buffer_bytes)


def _chunks(body: Any, file: RemoteFile, *, span: Span, buffer_bytes: int) -> Iterator[bytes]:
    errors: tuple[type[Exception], ...] = (OSError, *boto_errors())
    left = span.size
    while left:
        try:
            data: bytes = body.read(min(buffer_bytes, left))
        except errors as err:
            raise BrokenStreamError(f"object {file.key!r}: {err}") from err
        if not data:
            raise BrokenStreamError(f"object {file.key!r}: the stream ended {left} bytes early")
        left -= len(data)
        yield data


def _translated(err: Exception, file: RemoteFile) -> Exception:
    if (code := status(err)) in CHANGED:
        return _changed(file)
    if 400 <= code < 500 and code not in MAY_PASS:
        return MissingWeights(f"object {file.key!r} cannot be downloaded: {in_words(err)}", param="source")
    return BrokenStreamError(f"object {file.key!r}: {in_words(err)}")


def _changed(file: RemoteFile) -> MissingWeights:
    return MissingWeights(
        f"object {file.key!r} was changed or removed while it was downloaded; start again for what is there now", param="source"
    )
