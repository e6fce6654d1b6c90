"""The RAG chain on real Ray with real embeddings; only the model that writes the answer is simulated."""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.stores.opening import open_store
from serve_app.commands import ingest
from serve_app.config import PlatformConfig, VectorStoreConfig
from serve_app.contracts import EmbeddingFingerprint
from serve_app.ingest.command import IngestOptions
from tests.integration.conftest import CONFIG
from tests.integration.platform import Platform

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

QUESTION = {"model": "assistant", "messages": [{"role": "user", "content": "Where do penguins live?"}], "max_tokens": 4}


def with_pipeline(uri: Path, collection: str) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    version = {"name": "v1", "embedder": "minilm", "collection": collection, "top_k": 1, "model": "chat"}
    version["prompt"] = "{% for hit in hits %}{{ hit.text }}\n{% endfor %}{{ question }}"
    return {
        **config,
        "embedders": [{"name": "minilm", "source": "sentence-transformers/all-MiniLM-L6-v2"}],
        "pipelines": [{"name": "assistant", "versions": [version]}],
        "vector_store": {"uri": str(uri)},
    }


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rag") / "lance"


@pytest.fixture
def rag(bare_platform: Platform, store_folder: Path) -> Platform:
    # Not over CONFIG: the embedder takes a while to start, so it stays from test to test.
    bare_platform.deploy(with_pipeline(store_folder, "birds"))
    return bare_platform


def test_an_empty_collection_is_refused_with_the_command_that_fills_it(rag: Platform) -> None:
    answer = httpx.post(f"{rag.url}/v1/chat/completions", json=QUESTION, timeout=60)
    assert answer.status_code == 409
    assert "manta ingest PATH --collection birds" in answer.json()["error"]["message"]


def test_an_ingested_passage_is_cited(rag: Platform, store_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "penguins.md").write_text("# Penguins\n\nPenguins live in the Antarctic.\n", encoding="utf-8")
    (tmp_path / "birds" / "owls.md").write_text("# Owls\n\nOwls hunt at night in forests.\n", encoding="utf-8")
    (tmp_path / "birds" / "broken.pdf").write_bytes(b"%PDF-1.7 not really")
    config = PlatformConfig.model_validate(with_pipeline(store_folder, "birds"))
    report = ingest.run(IngestOptions(tmp_path / "birds", "birds"), config, embedder=None, url=rag.url)
    assert (report.added, report.failed, report.exit_code) == (2, 1, 1)
    whole = httpx.post(f"{rag.url}/v1/chat/completions", json=QUESTION, timeout=60).json()
    assert [c["document_id"] for c in whole["citations"]] == ["birds/penguins.md"]
    stream = httpx.post(f"{rag.url}/v1/chat/completions", json={**QUESTION, "stream": True}, timeout=60)
    events = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")]
    assert [bool(e.get("citations")) for e in events] == [False] * (len(events) - 1) + [True]
    assert stream.headers["x-manta-pipeline-version"] == "v1"


def test_a_collection_of_another_embedder_is_refused_at_the_start(rag: Platform, store_folder: Path) -> None:
    store = open_store(VectorStoreConfig(uri=str(store_folder)))
    asyncio.run(store.create("others", EmbeddingFingerprint(model="other/model", dimension=7, normalized=True)))
    rag.deploy(with_pipeline(store_folder, "others"), wait=False)
    message = rag.wait_failure("retriever")
    assert "'others' was embedded with other/model (7 dimensions" in message
    assert "re-embed into a new collection" in message
