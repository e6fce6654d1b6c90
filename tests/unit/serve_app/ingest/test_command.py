from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from deployments.stores.lancedb import LanceStore
from serve_app.contracts import EmbeddingFingerprint
from serve_app.errors import BadRequest, EmbeddingMismatch, Unavailable
from serve_app.ingest import embed as embed_module
from serve_app.ingest import run as run_module
from serve_app.ingest.command import IngestOptions, ingest
from serve_app.ingest.report import FileFailure, IngestReport
from tests.unit.serve_app.ingest.fakes import FakeEmbedder, MemoryStore, WordTokenizer
from tests.unit.serve_app.ingest.files import pdf_with


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder of three readable files, a hidden one and one that nothing reads."""
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.md").write_text("# A\nalpha\n## Sub\nbeta\n")
    (folder / "b.txt").write_text("gamma")
    (folder / "deep" / "c.pdf").write_bytes(pdf_with("delta"))
    (folder / ".hidden.md").write_text("hidden")
    (folder / "logo.png").write_bytes(b"\x89PNG")
    return folder


async def run(
    docs: Path, store: MemoryStore, *, embedder: FakeEmbedder | None = None, prune: bool = False, root: str | None = None
) -> IngestReport:
    options = IngestOptions(docs, "docs", prune=prune, root_name=root)
    return await ingest(
        options, store, embedder=embedder or FakeEmbedder(), tokenizer=WordTokenizer(), console=Console(file=io.StringIO())
    )


def counts(report: IngestReport) -> dict[str, int]:
    names = ("added", "changed", "unchanged", "pruned", "failed", "ignored", "chunks_written")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


async def test_every_readable_file_is_stored_once(docs: Path) -> None:
    store = MemoryStore()
    report = await run(docs, store)
    assert counts(report) == {"added": 3, "ignored": 1, "chunks_written": 4}
    assert report.exit_code == 0
    assert [(c.id, c.title, c.headings, c.text) for c in store.chunks.values()] == [
        ("docs/a.md#0", "A", (), "alpha"),
        ("docs/a.md#1", "A", ("Sub",), "beta"),
        ("docs/b.txt#0", "b", (), "gamma"),
        ("docs/deep/c.pdf#0", "c", ("page 1",), "delta"),
    ]
    assert store.commits == [3]
    assert store.finished == 1


async def test_a_vector_belongs_to_its_passage(docs: Path) -> None:
    store = MemoryStore()
    await run(docs, store)
    for document in store.stored.values():
        assert [list(v) for v in document.vectors] == [[float(len(chunk.passage))] for chunk in document.chunks]


async def test_a_pipe_in_the_folder_is_not_waited_for(docs: Path) -> None:
    os.mkfifo(docs / "pipe.txt")
    assert counts(await run(docs, MemoryStore()))["added"] == 3


def write_badly_named(folder: Path) -> None:
    Path(os.fsdecode(bytes(folder) + b"/x\xff.txt")).write_text("text")


async def test_a_name_that_is_not_utf8_fails_alone(docs: Path) -> None:
    write_badly_named(docs)
    report = await run(docs, MemoryStore())
    assert (report.added, report.exit_code) == (3, 1)
    assert [(f.document_id, "rename it" in f.message) for f in report.failures] == [("docs/x?.txt", True)]


async def test_a_second_run_adds_nothing_and_embeds_nothing(docs: Path) -> None:
    store, again = MemoryStore(), FakeEmbedder()
    await run(docs, store)
    assert counts(await run(docs, store, embedder=again)) == {"unchanged": 3, "ignored": 1}
    assert again.calls == []


async def test_a_changed_file_replaces_its_chunks(docs: Path) -> None:
    store = MemoryStore()
    await run(docs, store)
    (docs / "a.md").write_text("# A\nomega\n")
    assert counts(await run(docs, store)) == {"changed": 1, "unchanged": 2, "ignored": 1, "chunks_written": 1}
    assert [c.text for c in store.stored["docs/a.md"].chunks] == ["omega"]


async def test_other_chunk_sizes_cut_every_file_again(docs: Path) -> None:
    store = MemoryStore()
    await run(docs, store)
    options = IngestOptions(docs, "docs", max_tokens=60)
    console = Console(file=io.StringIO())
    report = await ingest(options, store, embedder=FakeEmbedder(), tokenizer=WordTokenizer(), console=console)
    assert counts(report) == {"changed": 3, "ignored": 1, "chunks_written": 4}


async def test_prune_deletes_only_what_is_gone_from_this_root(docs: Path, tmp_path: Path) -> None:
    other = tmp_path / "docs-2"
    other.mkdir()
    (other / "x.md").write_text("x")
    store = MemoryStore()
    await run(docs, store)
    await run(other, store)
    (docs / "b.txt").unlink()
    (docs / "a.md").write_bytes(b"\xff broken now")
    report = await run(docs, store, prune=True)
    assert counts(report) == {"unchanged": 1, "pruned": 1, "failed": 1, "ignored": 1}
    assert sorted(store.stored) == ["docs-2/x.md", "docs/a.md", "docs/deep/c.pdf"]


async def test_without_prune_a_removed_file_stays(docs: Path) -> None:
    store = MemoryStore()
    await run(docs, store)
    (docs / "b.txt").unlink()
    assert counts(await run(docs, store)) == {"unchanged": 2, "ignored": 1}
    assert "docs/b.txt" in store.stored


async def test_a_corrupt_pdf_is_reported_and_the_rest_is_ingested(docs: Path) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 nonsense")
    console = Console(file=io.StringIO(), width=200)
    options = IngestOptions(docs, "docs")
    report = await ingest(options, MemoryStore(), embedder=FakeEmbedder(), tokenizer=WordTokenizer(), console=console)
    assert (report.exit_code, report.added, report.failed) == (1, 3, 1)
    [failure] = report.failures
    assert failure.document_id == "docs/broken.pdf"
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "failed docs/broken.pdf: damaged PDF" in shown


async def test_a_text_that_the_embedder_refuses_fails_its_file_only(docs: Path) -> None:
    store = MemoryStore()
    report = await run(docs, store, embedder=FakeEmbedder(refuses="gamma"))
    assert report.failures == [FileFailure("docs/b.txt", "the embedder does not like it")]
    assert sorted(store.stored) == ["docs/a.md", "docs/deep/c.pdf"]


async def test_an_embedder_that_goes_away_ends_the_run_and_a_rerun_completes_it(
    docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GoesAway(FakeEmbedder):
        async def embed(self, texts: list[str], *, budget_s: float | None = None) -> list[list[float]]:  # type: ignore[override]
            if self.calls:
                raise Unavailable("gone")
            return await super().embed(texts, budget_s=budget_s)

    monkeypatch.setattr(run_module, "COMMIT_CHUNKS", 2)
    store = MemoryStore()
    with pytest.raises(Unavailable, match="gone"):
        await run(docs, store, embedder=GoesAway())
    assert sorted(store.stored) == ["docs/a.md"]
    assert counts(await run(docs, store)) == {"added": 2, "unchanged": 1, "ignored": 1, "chunks_written": 2}


async def test_many_texts_go_in_requests_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed_module, "REQUEST_TEXTS", 3)
    (tmp_path / "long.txt").write_text("\n\n".join("word " * n for n in range(100, 108)))
    embedder, store = FakeEmbedder(), MemoryStore()
    report = await run(tmp_path, store, embedder=embedder)
    assert max(map(len, embedder.calls)) == 3
    assert sum(map(len, embedder.calls)) == report.chunks_written == len(store.chunks)


async def test_another_embedder_is_refused_with_the_fix(docs: Path) -> None:
    store = MemoryStore(EmbeddingFingerprint("org/other", 8, normalized=True))
    with pytest.raises(EmbeddingMismatch, match=r"org/other \(8 .*org/fake \(1 .*manta ingest PATH --collection NEW"):
        await run(docs, store)


async def test_a_single_file_is_one_document_of_its_folder(docs: Path) -> None:
    store = MemoryStore()
    await run(docs / "b.txt", store)
    assert list(store.stored) == ["docs/b.txt"]


async def test_a_root_name_replaces_the_folders_name(docs: Path) -> None:
    store = MemoryStore()
    await run(docs / "b.txt", store, root="manual")
    assert list(store.stored) == ["manual/b.txt"]


@pytest.mark.parametrize(
    ("path", "prune", "max_tokens", "message"),
    [
        ("nowhere", False, 120, "does not exist"),
        ("logo.png", False, 120, ""),
        ("deep/..", False, 255, "--max-tokens 255 is over what the embedder reads: 254"),
        ("b.txt", True, 120, "--prune needs a folder"),
        ("only-images", False, 120, r"nothing to ingest.*\.md"),
    ],
    ids=["missing", "unreadable-file", "too-long", "prune-file", "nothing-readable"],
)
async def test_options_that_cannot_work_are_refused_before_any_write(
    docs: Path, path: str, prune: bool, max_tokens: int, message: str
) -> None:
    (docs / "only-images").mkdir()
    store, console = MemoryStore(), Console(file=io.StringIO())
    options = IngestOptions(docs / path, "docs", prune=prune, max_tokens=max_tokens)
    if not message:  # a file named on purpose fails like any other file
        report = await ingest(options, store, embedder=FakeEmbedder(), tokenizer=WordTokenizer(), console=console)
        assert (report.exit_code, store.stored) == (1, {})
        return
    with pytest.raises(BadRequest, match=message):
        await ingest(options, store, embedder=FakeEmbedder(), tokenizer=WordTokenizer(), console=console)
    assert store.fingerprint is None


async def test_a_home_folder_of_nobody_is_named() -> None:
    store, console = MemoryStore(), Console(file=io.StringIO())
    options = IngestOptions("~no-such-user/docs", "docs")
    with pytest.raises(BadRequest, match="~no-such-user/docs does not exist: ~no-such-user is no home folder") as refusal:
        await ingest(options, store, embedder=FakeEmbedder(), tokenizer=WordTokenizer(), console=console)
    assert (refusal.value.param, store.fingerprint) == ("path", None)


async def test_it_works_on_the_real_store(docs: Path, tmp_path: Path) -> None:
    store = LanceStore(str(tmp_path / "lance"), refresh_s=0)
    options = IngestOptions(docs, "docs", prune=True)
    embedder, tokenizer, console = FakeEmbedder(dimension=4), WordTokenizer(), Console(file=io.StringIO())
    await ingest(options, store, embedder=embedder, tokenizer=tokenizer, console=console)
    (docs / "b.txt").write_text("changed text")
    (docs / "a.md").unlink()
    report = await ingest(options, store, embedder=embedder, tokenizer=tokenizer, console=console)
    assert counts(report) == {"changed": 1, "unchanged": 1, "pruned": 1, "ignored": 1, "chunks_written": 1}
    assert sorted(await store.documents("docs")) == ["docs/b.txt", "docs/deep/c.pdf"]
    hits = await store.search("docs", [1.0] * 4, text="changed", top_k=1)
    assert [hit.chunk.text for hit in hits] == ["changed text"]
