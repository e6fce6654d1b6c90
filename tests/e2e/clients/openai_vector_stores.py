"""OpenAI's SDK: files and vector stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import openai
from openai.types import VectorStore

from tests.e2e.clients.checks import Checks, error_of
from tests.e2e.clients.openai_client import HERE, client

check = Checks()

MOON = ("moon.md", b"# The moon\n\nThe moon is made of green cheese, says the tale.\n")
SUN = ("sun.txt", b"The sun is a star. It is made of hydrogen and helium.\n")


@contextmanager
def store(name: str) -> Iterator[VectorStore]:
    made = client.vector_stores.create(name=name)
    try:
        yield made
    finally:
        client.vector_stores.delete(made.id)


@check("files")
def files() -> str:
    made = client.files.create(file=MOON, purpose="assistants")
    assert (made.filename, made.bytes, made.purpose) == ("moon.md", len(MOON[1]), "assistants")
    assert client.files.retrieve(made.id).id == made.id
    assert client.files.content(made.id).read() == MOON[1]
    assert made.id in [file.id for file in client.files.list()]
    assert client.files.delete(made.id).deleted
    return error_of(openai.NotFoundError, lambda: client.files.retrieve(made.id)).message


@check("vector-store")
def vector_store() -> str:
    made = client.vector_stores.create(name="notes", metadata={"team": "docs"})
    assert made.metadata == {"team": "docs"}
    assert client.vector_stores.retrieve(made.id).name == "notes"
    assert client.vector_stores.update(made.id, name="papers").name == "papers"
    assert made.id in [found.id for found in client.vector_stores.list()]
    assert client.vector_stores.delete(made.id).deleted
    return made.id


@check("vector-store-search")
def vector_store_search() -> str:
    with store("search") as made:
        for file, about in ((MOON, "moon"), (SUN, "sun")):
            upload = client.files.create(file=file, purpose="assistants")
            done = client.vector_stores.files.create_and_poll(
                upload.id, vector_store_id=made.id, attributes={"about": about}, poll_interval_ms=200
            )
            assert done.status == "completed", done.last_error
        assert client.vector_stores.retrieve(made.id).file_counts.completed == 2
        everything = list(client.vector_stores.search(made.id, query="What is the moon made of?"))
        assert everything[0].filename == "moon.md"
        assert "green cheese" in everything[0].content[0].text
        assert {hit.filename for hit in everything} == {"moon.md", "sun.txt"}
        filtered = list(
            client.vector_stores.search(
                made.id, query="What is the moon made of?", filters={"type": "eq", "key": "about", "value": "sun"}
            )
        )
        assert {hit.filename for hit in filtered} == {"sun.txt"}
        return f"score {everything[0].score:.4f}"


@check("vector-store-files")
def vector_store_files() -> str:
    with store("files") as made:
        done = client.vector_stores.files.upload_and_poll(vector_store_id=made.id, file=MOON, poll_interval_ms=200)
        assert done.status == "completed", done.last_error
        assert [file.id for file in client.vector_stores.files.list(made.id)] == [done.id]
        parts = client.vector_stores.files.content(done.id, vector_store_id=made.id)
        assert "green cheese" in "".join(part.text or "" for part in parts)
        changed = client.vector_stores.files.update(done.id, vector_store_id=made.id, attributes={"year": 1609})
        assert changed.attributes == {"year": 1609}
        assert client.vector_stores.files.delete(done.id, vector_store_id=made.id).deleted
        assert list(client.vector_stores.search(made.id, query="moon")) == []
        return done.id


@check("vector-store-batch")
def vector_store_batch() -> str:
    with store("batch") as made:
        done = client.vector_stores.file_batches.upload_and_poll(
            vector_store_id=made.id, files=[MOON, SUN], poll_interval_ms=200
        )
        assert (done.status, done.file_counts.completed, done.file_counts.failed) == ("completed", 2, 0)
        return f"{done.file_counts.total} files"


@check("vector-store-bad-file")
def vector_store_bad_file() -> str:
    with store("bad") as made:
        done = client.vector_stores.files.upload_and_poll(
            vector_store_id=made.id, file=("broken.pdf", b"%PDF-1.7 no pdf at all"), poll_interval_ms=200
        )
        assert done.status == "failed"
        assert done.last_error is not None
        return f"{done.last_error.code}: {done.last_error.message}"


@check("other-tenants-store")
def other_tenants_store() -> str:
    other = client.with_options(api_key=HERE.other_key)
    with store("mine") as made:
        assert made.id not in [found.id for found in other.vector_stores.list()]
        return error_of(openai.NotFoundError, lambda: other.vector_stores.search(made.id, query="moon")).message


if __name__ == "__main__":
    check.run()
