"""Files and vector stores on real Ray with real embeddings, by OpenAI's own client."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.integration.conftest import CONFIG
from tests.integration.platform import Platform
from tests.integration.test_traffic import processes

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

PENGUINS = ("penguins.md", b"# Penguins\n\nPenguins live in the Antarctic and eat fish.\n")
OWLS = ("owls.txt", b"Owls hunt at night in forests.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture
def client(bare_platform: Platform, folder: Path) -> Iterator[OpenAI]:
    config = {
        **copy.deepcopy(CONFIG),
        "embedders": [{"name": "minilm", "source": "sentence-transformers/all-MiniLM-L6-v2"}],
        "vector_store": {"uri": str(folder / "lance")},
        "vector_stores": {"embedder": "minilm"},
    }
    bare_platform.deploy(config)
    with OpenAI(base_url=f"{bare_platform.url}/v1", api_key="none", timeout=60, max_retries=5) as made:
        yield made


def documents_pid(platform: Platform) -> int:
    """Return the process of the Documents replica."""
    [found] = processes(platform, "ServeReplica:documents:")
    return found


def found(client: OpenAI, store_id: str, query: str, **more: Any) -> list[str]:
    return [result.filename for result in client.vector_stores.search(store_id, query=query, **more)]


def test_files_are_added_found_by_meaning_filtered_and_removed(client: OpenAI) -> None:
    store = client.vector_stores.create(name="birds")
    in_store = client.vector_stores.files
    penguins = in_store.upload_and_poll(vector_store_id=store.id, file=PENGUINS, attributes={"year": 2024})
    owls = in_store.upload_and_poll(vector_store_id=store.id, file=OWLS, attributes={"year": 1999})
    assert (penguins.status, owls.status) == ("completed", "completed")
    # Completed means searchable, at once and in every process.
    assert found(client, store.id, "Which animal lives in the cold south?") == ["penguins.md", "owls.txt"]
    assert found(client, store.id, "animal", filters={"type": "lt", "key": "year", "value": 2000}) == ["owls.txt"]
    in_store.delete(owls.id, vector_store_id=store.id)
    assert found(client, store.id, "owls") == ["penguins.md"]
    client.vector_stores.delete(store.id)
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.retrieve(store.id)
    assert client.files.content(penguins.id).content == PENGUINS[1]


def test_a_killed_service_finishes_what_it_had_begun(client: OpenAI, bare_platform: Platform) -> None:
    store = client.vector_stores.create(name="many")
    long = b"Penguins live in the Antarctic. Owls hunt at night. Bees dance for each other. " * 200
    ids = [client.files.create(file=(f"{i}.txt", long), purpose="assistants").id for i in range(6)]
    batch = client.vector_stores.file_batches.create(store.id, file_ids=ids)
    assert batch.status == "in_progress"
    os.kill(documents_pid(bare_platform), signal.SIGKILL)
    done = client.vector_stores.file_batches.poll(batch.id, vector_store_id=store.id, poll_interval_ms=500)
    assert (done.status, done.file_counts.completed) == ("completed", 6)
    for i, file_id in enumerate(ids):
        of_file: Any = {"type": "eq", "key": "document_id", "value": file_id}
        assert set(found(client, store.id, "penguins", filters=of_file)) == {f"{i}.txt"}
