"""The models and adapters below a prefix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Literal

from serve_app.storage.location import Location
from serve_app.storage.manifest import MANIFEST
from serve_app.storage.remote import RemoteFile

KINDS: dict[str, Literal["model", "adapter"]] = {"config.json": "model", "adapter_config.json": "adapter"}
ANYTHING = tuple(KINDS)


@dataclass(frozen=True, slots=True)
class Shelved:
    """One model or adapter."""

    name: str  # relative to the prefix
    uri: str
    files: int
    total_bytes: int
    kind: Literal["model", "adapter"]
    modified: datetime


def shelve(location: Location, objects: Iterable[RemoteFile]) -> list[Shelved]:
    """Return the folders that hold a model or an adapter, sorted by name; what is below such a folder belongs to it."""
    files = [file for file in objects if PurePosixPath(file.name).name != MANIFEST]
    kinds: dict[str, Literal["model", "adapter"]] = {}
    for file in files:
        path = PurePosixPath(file.name)
        if path.name in KINDS and kinds.get(path.parent.as_posix()) != "adapter":  # some adapters carry their model's config
            kinds[path.parent.as_posix()] = KINDS[path.name]
    found: dict[str, list[RemoteFile]] = {folder: [] for folder in kinds}
    for file in files:
        owner = next((each.as_posix() for each in PurePosixPath(file.name).parents if each.as_posix() in kinds), None)
        if owner is not None:
            found[owner].append(file)
    return [_shelved(location, folder, kinds[folder], files=found[folder]) for folder in sorted(found)]


def _shelved(location: Location, folder: str, kind: Literal["model", "adapter"], *, files: list[RemoteFile]) -> Shelved:
    name, uri = (location.name, location.uri) if folder == "." else (folder, f"{location.uri}/{folder}")
    return Shelved(name, uri, len(files), sum(file.size for file in files), kind, max(file.modified for file in files))
