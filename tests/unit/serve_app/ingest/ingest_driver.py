"""A process that ingests in children of its own, each of which may be made to end at one exact point.

It reads one JSON order a line and answers one JSON line when the child is gone. The imports, which take seconds, are done once.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployments.stores import lancedb as lance_module
from deployments.stores.lancedb import LanceStore
from serve_app.errors import PlatformError
from serve_app.ingest import run as run_module
from serve_app.ingest.chunk import ChunkSizes
from serve_app.ingest.report import IngestReport
from serve_app.ingest.run import IngestRun
from serve_app.ingest.sources import find_sources
from tests.unit.serve_app.ingest.fakes import HashEmbedder, WordTokenizer

COLLECTION = "docs"
SIZES = ChunkSizes(max_tokens=8, overlap_tokens=2)
COMMIT_CHUNKS = 8
KILLED = frozenset({-signal.SIGKILL, -signal.SIGALRM})
FAILED = 3
PR_SET_PDEATHSIG = 1
KINDS = ("before", "after", "disk-full")  # as in file_faults.c


@dataclass(frozen=True, slots=True)
class Order:
    """What a child does, and where it ends."""

    sources: str
    store: str
    prune: bool = True
    at: int | None = None  # the n-th step, from 0; None: it lives
    of: str = "calls"  # calls: of LanceDB's Python API; files: changes below the store's folder
    kind: str = "before"
    vector_index_rows: int = 100_000
    keep_versions_s: float = 3600.0
    lives_s: float | None = None  # wall time after which it is killed; None: it is not


async def ingest(order: Order) -> IngestReport:
    """Do what `manta ingest` does, with an embedder that needs no platform."""
    store = LanceStore(order.store, refresh_s=0, vector_index_rows=order.vector_index_rows)
    run = IngestRun(COLLECTION, store, embedder=HashEmbedder(), tokenizer=WordTokenizer(), sizes=SIZES)
    sources = find_sources(Path(order.sources), "docs")
    return await run.execute(sources, prune=order.prune, on_file_done=lambda _: None)


def main() -> None:
    """Obey until the input ends."""
    for line in sys.stdin:
        order = Order(**json.loads(line))
        from_child, to_parent = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(from_child)
            os._exit(_obey(order, to_parent))
        os.close(to_parent)
        said = _read(from_child)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        sys.stdout.write(json.dumps({"code": code, "said": said}) + "\n")
        sys.stdout.flush()


def _obey(order: Order, answer: int) -> int:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    run_module.COMMIT_CHUNKS = COMMIT_CHUNKS
    lance_module.KEEP_VERSIONS_S = order.keep_versions_s
    arm(order)
    try:
        said = asdict(asyncio.run(ingest(order)))
    except PlatformError as err:
        os.write(answer, err.message.encode())
        return FAILED
    except BaseException:
        os.write(answer, traceback.format_exc().encode())
        return 1
    os.write(answer, json.dumps(said).encode())
    return 0


def arm(order: Order) -> None:
    """Make this process end at its n-th step, or after a time."""
    if order.lives_s is not None:
        signal.setitimer(signal.ITIMER_REAL, order.lives_s)  # nothing handles SIGALRM: the process just ends
    if order.at is None:
        return
    if order.of == "files":
        faults = ctypes.CDLL(os.environ["LD_PRELOAD"])
        faults.file_faults_arm(order.store.encode(), ctypes.c_long(order.at), KINDS.index(order.kind))
    else:
        _end_at_call(order.at, order.kind)


def _end_at_call(at: int, kind: str) -> None:
    from lancedb.db import AsyncConnection
    from lancedb.merge import LanceMergeInsertBuilder
    from lancedb.table import AsyncTable

    left = at

    def ending(method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1 and kind == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            is_last = left == -1
            try:
                return await method(*args, **kwargs)
            finally:
                if is_last:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for owner, names in (
        (AsyncConnection, ("create_table", "open_table", "drop_table")),
        (LanceMergeInsertBuilder, ("execute",)),
        (AsyncTable, ("create_index", "delete", "update", "optimize", "set_unenforced_primary_key", "add_columns")),
    ):
        for name in names:
            setattr(owner, name, ending(getattr(owner, name)))


def _read(source: int) -> str:
    with os.fdopen(source, "rb") as stream:
        return stream.read().decode()


if __name__ == "__main__":
    main()
