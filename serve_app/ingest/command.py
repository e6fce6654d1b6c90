"""`manta ingest`: a run with a progress bar and a summary."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from serve_app.contracts import Embedder, VectorStore
from serve_app.errors import BadRequest
from serve_app.ingest.chunk import DEFAULT_MAX_TOKENS, DEFAULT_OVERLAP_TOKENS, ChunkSizes
from serve_app.ingest.report import IngestReport
from serve_app.ingest.run import IngestRun
from serve_app.ingest.sources import SourceSet, opened
from serve_app.ingest.tokens import Tokenizer

SHOWN_FAILURES = 20
SPECIAL_TOKENS = 2


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """What the command line says."""

    source: str | Path  # a file, a folder, or s3://bucket/prefix
    collection: str
    prune: bool = False  # delete documents of the same root whose file is gone
    max_tokens: int = DEFAULT_MAX_TOKENS
    overlap_tokens: int = DEFAULT_OVERLAP_TOKENS
    root_name: str | None = None  # first part of document ids; None: the folder's name, or the prefix's last part


async def ingest(
    options: IngestOptions,
    store: VectorStore,
    *,
    embedder: Embedder,
    tokenizer: Tokenizer,
    console: Console | None = None,
) -> IngestReport:  # fmt: skip
    """Ingest a file, a folder or a prefix, show the progress and a summary, and return the report.

    Raises:
        BadRequest: an option cannot work; ``param`` names it.
        EmbeddingMismatch: the collection was filled by another embedder.
        MissingWeights: what is in object storage cannot be downloaded.
        Unavailable: the platform is not running or went away; what was stored so far stays.
    """
    console = console or Console(stderr=True)
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns about every oddity of a file that it can read
    sizes = _sizes(options, tokenizer)
    run = IngestRun(options.collection, store, embedder=embedder, tokenizer=tokenizer, sizes=sizes)
    with opened(options.source, options.root_name, console=console) as sources:
        if options.prune and not sources.is_whole:
            raise BadRequest("--prune needs a folder: a single file does not say what else is gone", param="prune")
        report = await _run_with_progress(run, sources, prune=options.prune, console=console)
    console.print(summary(report))
    for failure in report.failures[:SHOWN_FAILURES]:
        console.print(f"[red]failed[/] {escape(failure.document_id)}: {escape(failure.message)}", soft_wrap=True)
    if report.failed > SHOWN_FAILURES:
        console.print(f"[red]failed[/] and {report.failed - SHOWN_FAILURES} more")
    return report


def summary(report: IngestReport) -> Table:
    """Return the counts as a table."""
    table = Table(title=f"collection {report.collection}")
    files = ("added", "changed", "unchanged", "pruned", "failed", "ignored")
    for name in (*files, "chunks written", "seconds"):
        table.add_column(name, justify="right")
    counts = [str(getattr(report, name)) for name in files]
    table.add_row(*counts, str(report.chunks_written), f"{report.elapsed_s:.1f}")
    return table


def _sizes(options: IngestOptions, tokenizer: Tokenizer) -> ChunkSizes:
    window = tokenizer.window_tokens
    if window is not None and options.max_tokens > window - SPECIAL_TOKENS:
        raise BadRequest(
            f"--max-tokens {options.max_tokens} is over what the embedder reads: {window - SPECIAL_TOKENS} tokens",
            param="max_tokens",
        )
    return ChunkSizes(options.max_tokens, options.overlap_tokens)


async def _run_with_progress(run: IngestRun, sources: SourceSet, *, prune: bool, console: Console) -> IngestReport:
    if not console.is_terminal:
        return await run.execute(sources, prune=prune, on_file_done=_Lines(console, len(sources.files)).show)
    columns = (
        TextColumn("ingesting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files, {task.fields[chunks]} chunks written"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("ingest", total=len(sources.files), chunks=0)

        def show(report: IngestReport) -> None:
            progress.update(task, completed=_done(report), chunks=report.chunks_written)

        return await run.execute(sources, prune=prune, on_file_done=show)


class _Lines:
    """Progress where no bar can be drawn, such as in a log: a line every tenth of the way."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._shown = 0

    def show(self, report: IngestReport) -> None:
        tenth = 10 * _done(report) // max(self._total, 1)
        if tenth > self._shown:
            self._shown = tenth
            self._console.print(f"ingesting {_done(report)}/{self._total} files, {report.chunks_written} chunks written")


def _done(report: IngestReport) -> int:
    return report.added + report.changed + report.unchanged + report.failed
