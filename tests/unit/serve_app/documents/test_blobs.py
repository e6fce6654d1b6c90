"""Both homes of uploads keep the same promises."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from deployments.blobs import S3Blobs, open_blobs
from serve_app.documents.blobs import PARTIAL, BlobStore, FolderBlobs
from serve_app.errors import Unavailable


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    if request.param == "folder":
        yield open_blobs(str(tmp_path / "documents"))
        return
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("endpoint"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    store = open_blobs("s3://bucket/some/prefix/")
    assert isinstance(store, S3Blobs)
    yield store
    for entry in client.list_objects_v2(Bucket="bucket").get("Contents", ()):
        client.delete_object(Bucket="bucket", Key=entry["Key"])
    client.close()
    store.close()


async def test_objects_are_replaced_read_listed_and_deleted(blobs: BlobStore) -> None:
    assert await blobs.keys() == []
    await blobs.put("files/file-a/content", b"old")
    await blobs.put("files/file-a/content", b"\0new")
    await blobs.put("stores/vs_b/store.json", b"{}")
    assert await blobs.get("files/file-a/content") == b"\0new"
    assert sorted(await blobs.keys()) == ["files/file-a/content", "stores/vs_b/store.json"]
    await blobs.delete("files/file-a/content")
    await blobs.delete("files/file-a/content")
    assert await blobs.keys() == ["stores/vs_b/store.json"]
    with pytest.raises(KeyError):
        await blobs.get("files/file-a/content")


async def test_a_write_that_was_cut_short_is_cleared_away(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    await blobs.put("files/file-a/record.json", b"{}")
    partial = tmp_path / "files" / "file-b" / f"{PARTIAL}x"
    partial.parent.mkdir()
    partial.write_bytes(b"half")
    assert await blobs.keys() == ["files/file-a/record.json"]
    assert not partial.parent.exists()


def contents_below(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def test_a_full_disk_keeps_the_old_object_and_no_part_of_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    blobs = FolderBlobs(tmp_path)
    await blobs.put("files/file-a/record.json", b"old")
    monkeypatch.setattr("serve_app.documents.blobs.os.fsync", full)
    with pytest.raises(Unavailable, match=r"uploads cannot be kept now: No space left.*vector_stores\.uri") as refusal:
        await blobs.put("files/file-a/record.json", b"new")
    assert str(tmp_path) not in refusal.value.message
    assert contents_below(tmp_path) == [b"old"]


async def test_writers_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    await asyncio.gather(*(blobs.put(f"stores/vs_a/files/{i}.json", b"{}") for i in range(50)))
    assert len(await blobs.keys()) == 50


async def test_an_object_store_that_is_away_is_said_to_be_without_its_address() -> None:
    config = Config(retries={"max_attempts": 0}, connect_timeout=1)
    away = {"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1", "config": config}
    client = boto3.client("s3", aws_access_key_id="a", aws_secret_access_key="b", **away)
    with pytest.raises(Unavailable, match="object store is away") as refusal:
        await S3Blobs(client, "bucket", prefix="").get("files/file-a/content")
    assert "127.0.0.1" not in refusal.value.message
    client.close()
