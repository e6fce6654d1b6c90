from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from deployments.document_handle import HandleDocuments
from deployments.documents import ServedDocuments
from serve_app.documents.contract import Documents, Upload
from serve_app.documents.pages import Page
from serve_app.documents.service import DocumentService
from serve_app.errors import BadRequest

METHODS = sorted(name for name in vars(Documents) if not name.startswith("_"))
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


class Served(ServedDocuments):
    """Serve awaits destructors; the garbage collection of a test does not."""

    def __del__(self) -> None:  # type: ignore[override]
        pass


async def served(folder: Path, **config: Any) -> ServedDocuments:
    service: Any = object.__new__(Served)  # Serve awaits constructors; Python does not
    await ServedDocuments.__init__(
        service,
        config={"embedder": "minilm", **config},
        store={"uri": str(folder / "lance")},
        uri=str(folder / "documents"),
        embedder_source=MINILM,
    )
    made: ServedDocuments = service
    return made


@pytest.mark.parametrize("name", METHODS)
def test_the_service_and_its_handle_take_what_the_protocol_says(name: str) -> None:
    said = inspect.signature(getattr(Documents, name))
    for implementation in (DocumentService, HandleDocuments):
        assert inspect.signature(getattr(implementation, name)) == said


@pytest.mark.parametrize("name", METHODS)
async def test_the_handle_passes_on_what_it_is_given(name: str) -> None:
    class Recorder:
        async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
            return method, args, kwargs

        read = call

    documents: Any = HandleDocuments()
    documents._handle = Recorder()
    taken = inspect.signature(getattr(Documents, name)).parameters
    args = [f"<{p}>" for p, how in taken.items() if how.kind is how.POSITIONAL_OR_KEYWORD and p != "self"]
    kwargs = {p: f"<{p}>" for p, how in taken.items() if how.kind is how.KEYWORD_ONLY}
    passed = await getattr(documents, name)(*args, **kwargs)
    assert passed is True if name == "owns" else passed == (name, tuple(args), kwargs)


async def test_the_service_starts_from_its_arguments_and_outlives_its_process(tmp_path: Path) -> None:
    first = await served(tmp_path)
    await first.check_health()
    file = await first.create_file("ann", Upload("a.txt", "assistants", b"x"))
    await first.close()
    second = await served(tmp_path)
    assert (await second.files("ann", Page()))["data"] == [file]
    await second.close()


async def test_chunks_longer_than_the_embedder_reads_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"vector_stores\.chunk_tokens is 800 tokens; the embedder reads at most 254"):
        await served(tmp_path, chunk_tokens=800)
