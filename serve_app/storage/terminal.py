"""Progress of a transfer on a terminal, or as lines where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from serve_app.storage.progress import OnProgress, Progress


@contextmanager
def shown(console: Console, what: str) -> Iterator[OnProgress]:
    """Yield where to report; ``what`` is such as "downloading s3://bucket/prefix"."""
    if not console.is_terminal:
        yield _Lines(console, what).show
        return
    columns = (TextColumn(escape(what)), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("transfer", total=None)
        yield lambda progress: bar.update(task, completed=progress.done_bytes, total=progress.total_bytes)


class _Lines:
    """A line every tenth of the way."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what
        self._shown = 0

    def show(self, progress: Progress) -> None:
        tenth = 10 * progress.done_bytes // max(progress.total_bytes, 1)
        if tenth > self._shown:
            self._shown = tenth
            done, total = progress.done_bytes / 1e6, progress.total_bytes / 1e6
            self._console.print(f"{escape(self._what)}: {done:.1f} of {total:.1f} MB", soft_wrap=True)
