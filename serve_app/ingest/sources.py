"""Which files an ingest reads, what they are called in the collection, and whether they changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rich.console import Console

from serve_app.errors import BadRequest
from serve_app.ingest.chunk import CHUNKER_VERSION, ChunkSizes
from serve_app.ingest.parse import PARSER_VERSION, PARSERS
from serve_app.ingest.tokens import Tokenizer
from serve_app.storage.folders import fetch, open_storage
from serve_app.storage.location import is_remote, parse_location
from serve_app.storage.remote import list_folder
from serve_app.storage.terminal import shown


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to ingest."""

    path: Path
    document_id: str  # "<name of the root>/<path below it>"


@dataclass(frozen=True, slots=True)
class SourceSet:
    """The files under one root."""

    root: str  # first part of every document id
    files: tuple[SourceFile, ...]  # sorted by document id
    ignored: int  # files of a suffix that no parser reads
    is_whole: bool  # False for a single file: then nothing can be said about what is gone


def find_sources(path: Path, root_name: str | None = None) -> SourceSet:
    """Return the files to read: a folder's regular files, without hidden ones, or the single file itself.

    ``root_name`` replaces the folder's name in document ids; give one when two folders of a collection share a name.

    Raises:
        BadRequest: the path is missing, or there is nothing under it that can be read.
    """
    path = _home_expanded(path).absolute()
    if path.is_file():
        root = root_name or path.parent.name
        return SourceSet(root, (SourceFile(path, f"{root}/{path.name}"),), ignored=0, is_whole=False)
    if not path.is_dir():
        raise BadRequest(f"{path} does not exist; give a file or a folder", param="path")
    root = root_name or path.resolve().name
    found = sorted(_walk(path))
    readable = [file for file in found if file.suffix.lower() in PARSERS]
    if not readable:
        raise BadRequest(f"nothing to ingest in {path}: no file with {', '.join(sorted(PARSERS))}", param="path")
    files = sorted((SourceFile(f, f"{root}/{f.relative_to(path).as_posix()}") for f in readable), key=_by_id)
    return SourceSet(root, tuple(files), ignored=len(found) - len(readable), is_whole=True)


@contextmanager
def opened(source: str | Path, root_name: str | None = None, *, console: Console) -> Iterator[SourceSet]:
    """Yield the files of a path, or of ``s3://bucket/prefix``: these are downloaded, and stay until the context ends.

    Document ids of a prefix begin with its last part, as those of a folder with its name.

    Raises:
        BadRequest: the path is missing, or there is nothing under it that can be read.
        MissingWeights: the objects cannot be downloaded.
    """
    if not is_remote(str(source)):
        yield find_sources(Path(source), root_name)
        return
    place, storage = parse_location(str(source), may_be_bucket=True), open_storage()
    remote = list_folder(storage.s3, place, keep=_is_readable)
    with shown(console, f"downloading {place.uri}") as report:
        folder = fetch(remote, storage, kind="documents", on_progress=report)
    with folder:
        yield replace(find_sources(folder.path, root_name or place.name), ignored=remote.left_out)


def _home_expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as err:  # ~name of no user, or no home folder
        raise BadRequest(
            f"{path} does not exist: {path.parts[0]} is no home folder here; write the path out", param="path"
        ) from err


def _is_readable(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in PARSERS and not any(part.startswith(".") for part in path.parts)


def content_hash(data: bytes, *, tokenizer: Tokenizer, sizes: ChunkSizes) -> str:
    """Return a digest of the file and of everything that shapes its chunks."""
    settings = f"{PARSER_VERSION}:{CHUNKER_VERSION}:{tokenizer.name}:{sizes.max_tokens}:{sizes.overlap_tokens}"
    return hashlib.sha256(settings.encode() + b"\0" + data).hexdigest()


def _by_id(file: SourceFile) -> str:
    return file.document_id


def _walk(folder: Path) -> Iterator[Path]:
    for current, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(current, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())  # reading a pipe would never end
