from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from deployments.llm.s3 import download
from serve_app.errors import MissingWeights

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 300_000, "tokenizer/tokenizer.json": b"[]"}
URI = "s3://models/tiny"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str) -> Iterator[Any]:
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
    )
    client.create_bucket(Bucket="models")
    for name, body in FILES.items():
        client.put_object(Bucket="models", Key=f"tiny/{name}", Body=body)
    yield client
    for entry in client.list_objects_v2(Bucket="models").get("Contents", ()):
        client.delete_object(Bucket="models", Key=entry["Key"])
    client.close()


class Counting:
    """Counts downloads, and may break them."""

    def __init__(self, s3: Any, *, fail_on: str = "", cut: str = "") -> None:
        self._s3, self._fail_on, self._cut = s3, fail_on, cut
        self.fetched: list[str] = []

    def get_paginator(self, name: str) -> Any:
        return self._s3.get_paginator(name)

    def head_object(self, **of: str) -> Any:
        return self._s3.head_object(**of)

    def download_file(self, bucket: str, key: str, target: str) -> None:
        if key.endswith(self._fail_on or "\0"):
            raise OSError("connection lost")
        self.fetched.append(key)
        self._s3.download_file(bucket, key, target)
        if key.endswith(self._cut or "\0"):
            Path(target).write_bytes(b"short")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_object_below_the_prefix_is_downloaded_once(s3: Any, tmp_path: Path) -> None:
    counting = Counting(s3)
    first = download(URI, cache=tmp_path, client=counting)
    second = download(URI + "/", cache=tmp_path, client=counting)
    assert first == second
    assert contents(first) == FILES
    assert len(counting.fetched) == len(FILES)


def test_changed_weights_get_a_folder_of_their_own(s3: Any, tmp_path: Path) -> None:
    before = download(URI, cache=tmp_path, client=s3)
    s3.put_object(Bucket="models", Key="tiny/model.safetensors", Body=b"v" * 300_000)
    after = download(URI, cache=tmp_path, client=s3)
    assert before != after
    assert (contents(before)["model.safetensors"][:1], contents(after)["model.safetensors"][:1]) == (b"w", b"v")


def test_an_interrupted_download_shows_no_folder_and_continues(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"tokenizer\.json.*connection lost"):
        download(URI, cache=tmp_path, client=Counting(s3, fail_on="tokenizer.json"))
    assert [p for p in tmp_path.iterdir() if p.is_dir() and p.suffix != ".partial"] == []
    again = Counting(s3)
    assert contents(download(URI, cache=tmp_path, client=again)) == FILES
    assert again.fetched == ["tiny/tokenizer/tokenizer.json"]


def test_a_short_object_is_refused_and_thrown_away(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="5 bytes of 300000"):
        download(URI, cache=tmp_path, client=Counting(s3, cut="model.safetensors"))
    assert contents(download(URI, cache=tmp_path, client=s3)) == FILES


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://models/nothing", "no config.json below it"),
        ("s3://nobody/tiny", "cannot be listed"),
        ("s3://models", "must be s3://bucket/prefix"),
    ],
    ids=["empty-prefix", "no-bucket", "no-prefix"],
)
def test_what_is_not_there_names_the_source(s3: Any, tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(MissingWeights, match=message) as caught:
        download(uri, cache=tmp_path, client=s3)
    assert caught.value.param == "source"


def test_a_full_disk_is_said_before_anything_is_written(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.llm.s3.KEEP_FREE_BYTES", 1 << 60)
    with pytest.raises(MissingWeights, match="MANTA_CACHE"):
        download(URI, cache=tmp_path, client=s3)
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]
