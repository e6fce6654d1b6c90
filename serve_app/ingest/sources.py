"""Which files an ingest reads, what they are called in the collection, and whether they changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import BadRequest
from serve_app.ingest.chunk import CHUNKER_VERSION, ChunkSizes
from serve_app.ingest.parse import PARSER_VERSION, PARSERS
from serve_app.ingest.tokens import Tokenizer


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
    path = path.expanduser().absolute()
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
