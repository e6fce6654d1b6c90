from __future__ import annotations

from collections.abc import Iterator, Mapping

import boto3
import pytest
from moto.server import ThreadedMotoServer

from deployments.stores.lancedb import LanceStore
from deployments.stores.object_store import storage_options
from serve_app.contracts import Chunk, EmbeddedDocument, EmbeddingFingerprint
from serve_app.errors import Unavailable
from serve_app.ports import free_ports

PRINT = EmbeddingFingerprint("org/fake", dimension=2, normalized=True)
URI = "s3://bucket/lance"
PLAIN = {"aws_endpoint": "http://minio:9000", "allow_http": "true"}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    use(monkeypatch, endpoint := f"http://{host}:{port}")
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield endpoint
    server.stop()


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Set boto3's variables and no others."""
    region = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), "us-east-1")
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for name, value in {**region, **keys, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)


def document(name: str, text: str) -> EmbeddedDocument:
    chunk = Chunk(f"{name}#0", name, 0, title=name, headings=(), text=text, start=0, end=len(text))
    return EmbeddedDocument(name, "1", [chunk], [[1.0, 0.0]])


@pytest.mark.usefixtures("endpoint")
async def test_a_collection_in_s3_is_written_and_searched_with_the_variables_of_boto3() -> None:
    writer, reader = LanceStore(URI), LanceStore(URI, refresh_s=0)
    await writer.create("docs", PRINT)
    await writer.replace_documents("docs", [document("a", "kept here")])
    assert [hit.chunk.text for hit in await reader.search("docs", [1.0, 0.0], text="kept", top_k=3)] == ["kept here"]
    await writer.drop("docs")
    assert await LanceStore(URI).describe("docs") is None


async def test_an_object_store_that_does_not_answer_is_told_without_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(Unavailable, match=r"cannot be opened; vector_store\.uri says where") as caught:
        await LanceStore(URI).describe("docs")
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "environ", "options"),
    [
        ("./data/lance", {"AWS_ENDPOINT_URL": "http://minio:9000"}, {}),
        (URI, {}, {}),
        (URI, {"AWS_ENDPOINT_URL": "https://minio"}, {"aws_endpoint": "https://minio"}),
        (URI, {"AWS_ENDPOINT_URL": "http://minio:9000"}, PLAIN),
        (URI, {"AWS_ENDPOINT": "http://minio:9000"}, PLAIN),
        (URI, {"AWS_ENDPOINT_URL_S3": "http://minio:9000", "AWS_ENDPOINT_URL": "https://sts"}, PLAIN),
    ],
)
def test_an_endpoint_is_named_as_boto3_has_it(uri: str, environ: Mapping[str, str], options: Mapping[str, str]) -> None:
    assert storage_options(uri, environ) == options
