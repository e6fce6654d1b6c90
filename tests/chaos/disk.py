"""A disk of its own for the nodes of a cluster, that can be filled."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.chaos.network import run

SIZE = "1g"


class Disk:
    """A file system in memory. Use as a context manager. Needs root (Linux)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Disk:
        self.folder.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self.folder))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # Detached: processes that are just ending may still hold files.
        run("umount", "--lazy", str(self.folder), must_work=False)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no byte for the block."""
        filler = self.folder / "filler"
        try:
            with filler.open("wb") as out, contextlib.suppress(OSError):
                while free := shutil.disk_usage(self.folder).free:
                    os.posix_fallocate(out.fileno(), out.tell(), free)
                    out.seek(free, os.SEEK_CUR)
            yield
        finally:
            filler.unlink()
