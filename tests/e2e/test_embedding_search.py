"""The real MiniLM, the real store, Python's own documentation: does a question find its passage?"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

from deployments.embedder import EmbedBatch, Embedder, EmbedOne, Text
from deployments.embedding_sources import resolve
from deployments.retriever import Retriever
from deployments.stores.lancedb import LanceStore
from serve_app.config import EmbedderConfig
from serve_app.contracts import SearchQuery
from serve_app.ingest.command import IngestOptions, ingest
from serve_app.ingest.python_docs import write_python_docs
from serve_app.ingest.tokens import load_tokenizer

CONFIG = EmbedderConfig(name="minilm", source="sentence-transformers/all-MiniLM-L6-v2")
PAGES = ["os.path", "heapq", "shutil", "bisect", "math", "getpass", "fnmatch", "glob"]
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore"),  # of torch and transformers, while they load
]


def one_by_one(embed_batch: EmbedBatch, _: EmbedderConfig) -> EmbedOne:
    """Stand in for Ray Serve's batching, which needs a replica."""

    async def one(text: Text) -> list[float] | None:
        return (await embed_batch([text]))[0]

    return one


async def found(retriever: Retriever, text: str) -> list[str]:
    hits = await retriever.search(SearchQuery("docs", "minilm", text, top_k=3))
    return [hit.chunk.headings[-1] if hit.chunk.headings else hit.chunk.title for hit in hits]


async def test_questions_find_their_passage_and_a_second_run_adds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pages = tmp_path / "python"
    assert await asyncio.to_thread(write_python_docs, tmp_path / "all") > 200
    pages.mkdir()
    for page in PAGES:
        (tmp_path / "all" / "library" / f"{page}.md").rename(pages / f"{page}.md")
    embedder = await asyncio.to_thread(Embedder, CONFIG, batch=one_by_one)
    store, tokenizer = LanceStore(str(tmp_path / "lance")), load_tokenizer(resolve(CONFIG.source))

    report, again = [
        await ingest(
            IngestOptions(pages, "docs"),
            store,
            embedder=embedder,
            tokenizer=tokenizer,
            console=Console(file=io.StringIO()),
        )
        for _ in range(2)
    ]
    assert (report.added, report.failed) == (len(PAGES), 0)
    assert (again.unchanged, again.chunks_written) == (len(PAGES), 0)

    retriever = Retriever([("minilm", "docs")], store, embedders={"minilm": embedder})
    await retriever.verify()
    assert any("heappushpop" in h for h in await found(retriever, "what does heapq.heappushpop do?"))  # an exact name
    assert any("rmtree" in h for h in await found(retriever, "delete a whole folder with everything inside"))  # meaning
    assert any("getpass" in h for h in await found(retriever, 'read a "password" without showing it?'))
