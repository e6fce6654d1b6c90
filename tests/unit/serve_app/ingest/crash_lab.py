"""What the crash tests need: folders of documents, the driver, and what a collection holds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from deployments.stores.lancedb import LanceStore
from tests.unit.serve_app.ingest.fakes import HashEmbedder
from tests.unit.serve_app.ingest.ingest_driver import COLLECTION, FAILED, KILLED, Order

ROOT = Path(__file__).parents[4]
QUESTIONS = ("owl hunts", "bee dances", "fox 3", "revised", "added")
Row = tuple[Any, ...]
State = Mapping[str, Mapping[str, Row]]  # document id -> chunk id -> what the row holds


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child of the driver ended."""

    code: int
    said: str

    @property
    def was_killed(self) -> bool:
        return self.code in KILLED

    @property
    def failed_in_plain_words(self) -> bool:
        return self.code == FAILED


class Driver:
    """The running `ingest_driver.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, order: Order) -> Ended:
        """Return how a child ended that obeyed the order."""
        self.begin(order)
        return self.end()

    def begin(self, order: Order) -> None:
        """Start a child."""
        stdin: IO[str] = self._process.stdin  # type: ignore[assignment]
        stdin.write(json.dumps(asdict(order)) + "\n")
        stdin.flush()

    def end(self) -> Ended:
        """Wait until it is gone."""
        stdout: IO[str] = self._process.stdout  # type: ignore[assignment]
        return Ended(**json.loads(stdout.readline()))


@contextmanager
def driver(*, preload: Path | None = None) -> Iterator[Driver]:
    """Yield a driver; ``preload`` is the built file_faults.c."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"} | ({"LD_PRELOAD": str(preload)} if preload else {})
    command = [sys.executable, "-m", "tests.unit.serve_app.ingest.ingest_driver"]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield Driver(process)
        finally:
            process.kill()


def built_faults(folder: Path, compiler: str) -> Path:
    """Return file_faults.c as a library."""
    library = folder / "file_faults.so"
    source = Path(__file__).parent / "file_faults.c"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"], check=True)
    return library


def write_first(folder: Path, files: int = 6) -> Path:
    """Make a folder of documents of several chunks each, and return it."""
    folder.mkdir()
    for i in range(files):
        sections = "\n".join(
            f"## Part {j}\nThe owl hunts at night {i}.{j} and the bee dances by day.\n" for j in range(1 + i % 3)
        )
        (folder / f"d{i}.md").write_text(f"# Fox {i}\n{sections}")
    return folder


def write_second(folder: Path, files: int = 6) -> Path:
    """Make the folder as it is later: every document changed (shorter, longer, other words), gone, the same, or new."""
    write_first(folder, files)
    (folder / "d0.md").unlink()
    (folder / "d1.md").write_text("# Fox 1\nrevised and short\n")
    (folder / "d3.md").write_text("# Fox 3\n" + "\n".join(f"## Part {j}\nrevised and long {j}\n" for j in range(5)))
    (folder / "new.md").write_text("# New\nadded owl\n## More\nadded bee\n")
    (folder / "new2.md").write_text("# New too\nadded\n")
    return folder


async def state_of(folder: Path | str) -> State:
    """Return all that a collection holds.

    Raises:
        AssertionError: a chunk is there twice.
    """
    store = LanceStore(str(folder), refresh_s=0)
    table = await store._find(COLLECTION)
    if table is None:
        return {}
    state: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in await table.query().to_list():
        document = state[row["document_id"]]
        assert row["id"] not in document, f"{row['id']} is there twice"
        document[row["id"]] = tuple(tuple(value) if isinstance(value, list) else value for value in row.values())
    return state


async def found_in(folder: Path | str) -> dict[str, list[str]]:
    """Return what searches find, by words and by vector; the order of what is equally good is no promise."""
    store = LanceStore(str(folder), refresh_s=0)
    vectors = await HashEmbedder().embed(QUESTIONS)
    return {
        text: sorted(hit.chunk.id for hit in await store.search(COLLECTION, vector, text=text, top_k=50))
        for text, vector in zip(QUESTIONS, vectors, strict=True)
    }


async def best_in(folder: Path | str) -> list[tuple[str, str]]:
    """Return the best hit of a vector and words that only one passage has, for each passage."""
    store = LanceStore(str(folder), refresh_s=0)
    best = []
    for chunks in (await state_of(folder)).values():
        for name in chunks:
            [chunk] = [c for c in await store.chunks_of(COLLECTION, name.partition("#")[0]) if c.id == name]
            [vector] = await HashEmbedder().embed([chunk.passage])
            [hit] = await store.search(COLLECTION, vector, text=chunk.passage, top_k=1)
            best.append((name, hit.chunk.id))
    return sorted(best)


def require_whole(state: State, *versions: State) -> None:
    """Fail unless each document is one of its versions, or not there where a version has it not."""
    for name in {name for version in (state, *versions) for name in version}:
        assert state.get(name) in [version.get(name) for version in versions], f"{name} is a mixture"


def copied(folder: Path, to: Path) -> Path:
    """Return a copy of a store's folder; one that is not there stays so."""
    shutil.rmtree(to, ignore_errors=True)
    if folder.exists():
        shutil.copytree(folder, to)
    return to
