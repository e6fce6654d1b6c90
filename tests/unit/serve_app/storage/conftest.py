from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from serve_app.storage.cache import Cache
from serve_app.storage.connection import connect
from serve_app.storage.folders import Storage
from tests.unit.serve_app.storage.objects import BUCKET, GETS, TUNING


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def variables(endpoint: str) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1", **keys}


@pytest.fixture
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """boto3's own variables, for this process and those that it starts."""
    for name, value in variables(endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MANTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MANTA_CACHE_GIB", raising=False)


@pytest.fixture(scope="session")
def client(endpoint: str) -> Iterator[Any]:
    """One for all: making it costs more than a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(endpoint).items():
            patch.setenv(name, value)
        client = connect(TUNING)
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()


@pytest.fixture
def s3(client: Any, environment: None) -> Iterator[Any]:
    yield client
    while GETS:
        GETS.pop().close()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=entry["Key"])


@pytest.fixture
def storage(s3: Any, tmp_path: Path) -> Storage:
    """Small blocks, so that small objects have several."""
    return Storage(s3, Cache(tmp_path / "cache"), TUNING)
