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
PLAIN = {"allow_http": "true"}


@pytest.fixture
def server() -> Iterator[ThreadedMotoServer]:
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def endpoint(server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> str:
    host, port = server.get_host_and_port()
    use(monkeypatch, endpoint := f"http://{host}:{port}")
    boto3.client("s3").create_bucket(Bucket="bucket")
    return endpoint


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
    with pytest.raises(Unavailable, match=r"cannot be opened: the object store of vector_store\.uri does not answer") as caught:
        await LanceStore(URI).describe("docs")
    assert "127.0.0.1" not in str(caught.value)


async def test_a_write_that_the_object_store_does_not_answer_is_told_as_well(endpoint: str, server: ThreadedMotoServer) -> None:
    store = LanceStore(URI)
    await store.create("docs", PRINT)
    server.stop()
    with pytest.raises(Unavailable, match=r"'docs' cannot be written: the object store of vector_store\.uri"):
        await store.replace_documents("docs", [document("a", "lost")])


async def test_a_bucket_that_is_not_there_is_no_outage(endpoint: str) -> None:
    with pytest.raises(ValueError, match="NoSuchBucket"):
        await LanceStore("s3://another/lance").describe("docs")


@pytest.mark.parametrize(
    ("uri", "environ", "options"),
    [
        ("./data/lance", {"AWS_ENDPOINT_URL": "http://minio:9000"}, {}),
        (URI, {}, {}),
        (URI, {"AWS_ENDPOINT_URL": "https://minio"}, {}),
        (URI, {"AWS_ENDPOINT_URL": "http://minio:9000"}, PLAIN),
        (URI, {"AWS_ENDPOINT": "http://minio:9000"}, PLAIN),
        (URI, {"AWS_ENDPOINT_URL_S3": "http://minio:9000", "AWS_ENDPOINT_URL": "https://sts"}, PLAIN),
    ],
)
def test_an_endpoint_without_tls_is_meant(uri: str, environ: Mapping[str, str], options: Mapping[str, str]) -> None:
    assert storage_options(uri, environ) == options
