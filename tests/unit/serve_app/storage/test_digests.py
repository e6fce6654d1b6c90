from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from serve_app.storage.digests import Mismatch, RunningDigest, Verifier, algorithm_for
from serve_app.storage.remote import RemoteFile

BODY = bytes(range(256)) * 10
MD5 = hashlib.md5(BODY).hexdigest()  # noqa: S324
SHA256 = hashlib.sha256(BODY).hexdigest()


class Store:
    """Answers HEADs alike; without an answer it refuses them."""

    def __init__(self, head: dict[str, Any] | None = None) -> None:
        self._head = head

    def head_object(self, **_: Any) -> dict[str, Any]:
        if self._head is None:
            raise ClientError({"Error": {"Code": "405"}}, "HeadObject")
        return self._head


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def remote(etag: str, *, size: int = len(BODY), sha256: str | None = None) -> RemoteFile:
    return RemoteFile("p/one", "one", f'"{etag}"', size, datetime(2030, 1, 1, tzinfo=UTC), sha256)


def check(
    file: RemoteFile, tmp_path: Path, pool: ThreadPoolExecutor, *, s3: Store | None = None, bucket: str = "bucket"
) -> Mismatch | None:
    (tmp_path / "one").write_bytes(BODY)
    digest = RunningDigest(algorithm_for(file, bucket))
    return Verifier(s3 or Store(), bucket, pool).check(file, tmp_path / "one", digest)


@pytest.mark.parametrize("head", [None, {"ServerSideEncryption": "AES256"}], ids=["no-head", "the-stores-own-key"])
def test_an_md5_that_differs_is_a_mismatch(tmp_path: Path, pool: ThreadPoolExecutor, head: dict[str, Any] | None) -> None:
    assert check(remote(MD5), tmp_path, pool) is None
    wrong = check(remote("0" * 32), tmp_path, pool, s3=Store(head))
    assert wrong == Mismatch(f"md5 {'0' * 32}", f"md5 {MD5}")


@pytest.mark.parametrize(
    "head",
    [{"ServerSideEncryption": "aws:kms"}, {"ServerSideEncryption": "aws:kms:dsse"}, {"SSECustomerAlgorithm": "AES256"}],
    ids=["kms", "kms-twice", "customer"],
)
def test_under_a_key_of_its_own_an_etag_proves_nothing(tmp_path: Path, pool: ThreadPoolExecutor, head: dict[str, Any]) -> None:
    assert check(remote("0" * 32), tmp_path, pool, s3=Store(head)) is None
    assert check(remote(f"{'0' * 32}-1"), tmp_path, pool, s3=Store({**head, "PartsCount": 1, "ContentLength": 2560})) is None


def test_a_manifests_sha256_goes_before_any_etag(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    kms = Store({"ServerSideEncryption": "aws:kms"})
    assert check(remote("0" * 32, sha256=SHA256), tmp_path, pool) is None
    wrong = check(remote(MD5, sha256="1" * 64), tmp_path, pool, s3=kms)
    assert wrong == Mismatch(f"sha256 {'1' * 64}", f"sha256 {SHA256}")


def test_an_etag_of_another_kind_leaves_the_size(
    tmp_path: Path, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ray.serve")
    assert check(remote("opaque"), tmp_path, pool) is None
    assert check(remote("0" * 32), tmp_path, pool, bucket="models--use1-az4--x-s3") is None
    assert caplog.text.count("only its size is verified") == 2


def test_parts_are_hashed_by_the_size_that_the_endpoint_tells(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    parts = [hashlib.md5(BODY[start : start + 1000]).digest() for start in (0, 1000, 2000)]  # noqa: S324
    etag = f"{hashlib.md5(b''.join(parts)).hexdigest()}-3"  # noqa: S324
    told = Store({"PartsCount": 3, "ContentLength": 1000})
    assert check(remote(etag), tmp_path, pool, s3=told) is None
    assert check(remote(f"{'0' * 32}-3"), tmp_path, pool, s3=told) == Mismatch(f"ETag {'0' * 32}-3", f"ETag {etag}")
    assert check(remote(etag), tmp_path, pool, s3=Store({"PartsCount": 3, "ContentLength": 10})) is None  # cannot be all parts


def test_a_file_is_hashed_as_it_comes_and_the_rest_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(BODY)
    digest = RunningDigest("md5")
    digest.feed(BODY[:100], 0)
    digest.feed(b"a later part that comes too early", 2000)
    digest.feed(BODY[100:200], 100)
    with (tmp_path / "one").open("rb") as file:
        assert digest.finish(file.fileno(), len(BODY)) == MD5


def test_a_file_that_is_too_short_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(BODY)
    with (tmp_path / "one").open("rb") as file, pytest.raises(OSError, match="ends at 2560 of 2561 bytes"):
        RunningDigest("md5").finish(file.fileno(), len(BODY) + 1)
