"""Whether a file has the content that was asked for: sha256 from the manifest, else what its ETag says."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.storage.connection import boto_errors
from serve_app.storage.remote import RemoteFile

logger = logging.getLogger("ray.serve")

READ_BYTES = 1 << 20
MIB = 1 << 20
MD5 = re.compile(r"[0-9a-f]{32}")
MULTIPART = re.compile(r"([0-9a-f]{32})-(\d+)")
EXPRESS_BUCKET = "--x-s3"  # S3 Express: ETags that only look like MD5s
# Of boto3 and the AWS CLI (8), rclone (5), MinIO (16, 64), s3cmd (15), Hadoop (64, 128), large shards (which AWS doubles into).
USUAL_PART_BYTES = tuple(size * MIB for size in (8, 5, 16, 15, 64, 10, 32, 128, 25, 50, 100, 256, 512, 1024)) + tuple(
    size * 1_000_000 for size in (5, 8, 10, 16, 50, 64, 100)
)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Content that is not the one expected."""

    expected: str
    found: str


class RunningDigest:
    """Hashes a file while it arrives, as far as it arrives in order; what does not is read back at the end."""

    def __init__(self, algorithm: str | None) -> None:
        self._hash = None if algorithm is None else hashlib.new(algorithm, usedforsecurity=False)
        self._at = 0

    def feed(self, data: bytes, offset: int) -> None:
        """Take data that stands at ``offset``. Several threads may: only one of them is at the front."""
        if self._hash is not None and offset == self._at:
            self._hash.update(data)
            self._at += len(data)

    def finish(self, fd: int, size: int) -> str:
        """Return the whole file's digest."""
        for data in _read(fd, self._at, size):
            self.feed(data, self._at)
        return "" if self._hash is None else self._hash.hexdigest()


def algorithm_for(file: RemoteFile, bucket: str) -> str | None:
    """Return the hash that one pass over the whole file needs; None where it is not of that kind."""
    if file.sha256 is not None:
        return "sha256"
    return "md5" if MD5.fullmatch(_plain(file.etag)) and not bucket.endswith(EXPRESS_BUCKET) else None


class Verifier:
    """Compares files with what S3 says of them."""

    def __init__(self, s3: Any, bucket: str, pool: Executor) -> None:
        """``pool`` hashes parts; nothing that waits for a verification may run in it."""
        self._s3 = s3
        self._bucket = bucket
        self._pool = pool

    def check(self, file: RemoteFile, path: Path, digest: RunningDigest) -> Mismatch | None:
        """Return what is wrong with a file of the right size; None: nothing, or nothing that can be told. Raises OSError."""
        fd = os.open(path, os.O_RDONLY)
        try:
            if (algorithm := algorithm_for(file, self._bucket)) is not None:
                found, expected = digest.finish(fd, file.size), file.sha256 or _plain(file.etag)
                return self._judge(file, f"{algorithm} {expected}", f"{algorithm} {found}")
            if found_parts := MULTIPART.fullmatch(_plain(file.etag)):
                return self._check_parts(file, fd, int(found_parts[2]))
        finally:
            os.close(fd)
        logger.info("%s: its ETag %s is no MD5; only its size is verified", file.key, file.etag)
        return None

    def _judge(self, file: RemoteFile, expected: str, found: str) -> Mismatch | None:
        if found == expected or (file.sha256 is None and self._is_encrypted(file)):
            return None
        return Mismatch(expected, found)

    def _check_parts(self, file: RemoteFile, fd: int, count: int) -> Mismatch | None:
        known = self._part_bytes(file, count)
        sizes = [known] if known else [size for size in USUAL_PART_BYTES if math.ceil(file.size / size) == count]
        expected, found = _plain(file.etag), ""
        for size in sizes:
            if (found := self._etag_of(fd, file.size, part_bytes=size)) == expected:
                return None
        if known:
            return self._judge(file, f"ETag {expected}", f"ETag {found}")
        logger.warning("%s: its ETag %s has parts of an unknown size; only its size is verified", file.key, expected)
        return None

    def _etag_of(self, fd: int, size: int, *, part_bytes: int) -> str:
        def digest_of(start: int) -> bytes:
            return _md5_of(_read(fd, start, min(start + part_bytes, size)))

        digests = self._pool.map(digest_of, range(0, size, part_bytes))
        parts = list(digests)
        return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"

    def _part_bytes(self, file: RemoteFile, count: int) -> int | None:
        """Return the size of the object's parts, if the endpoint tells it and all but the last can have it."""
        head = self._head(file, PartNumber=1)
        size = int(head.get("ContentLength", 0))
        return size if head.get("PartsCount") == count and size and math.ceil(file.size / size) == count else None

    def _is_encrypted(self, file: RemoteFile) -> bool:
        """Return whether the object is under a key that makes its ETag something else than an MD5."""
        head = self._head(file)
        is_so = str(head.get("ServerSideEncryption", "")).startswith("aws:") or "SSECustomerAlgorithm" in head
        if is_so:
            logger.info("%s is encrypted with a key of its own: its ETag is no MD5; only its size is verified", file.key)
        return is_so

    def _head(self, file: RemoteFile, **options: int) -> dict[str, Any]:
        try:
            head: dict[str, Any] = self._s3.head_object(Bucket=self._bucket, Key=file.key, **options)
        except boto_errors():
            return {}  # an endpoint that does not answer this leaves the question open
        return head


def sha256_of(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return a file's sha256. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
            if on_bytes is not None:
                on_bytes(len(data))
    return digest.hexdigest()


def _md5_of(pieces: Iterable[bytes]) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _read(fd: int, start: int, end: int) -> Iterable[bytes]:
    """Yield a file's bytes. Raises OSError: it is shorter than that."""
    at = start
    while at < end:
        data = os.pread(fd, min(READ_BYTES, end - at), at)
        if not data:
            raise OSError(f"the file ends at {at} of {end} bytes")
        at += len(data)
        yield data


def _plain(etag: str) -> str:
    return etag.strip('"')
