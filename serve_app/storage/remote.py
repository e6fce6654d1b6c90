"""What is below a prefix: the objects of one folder, named by their content."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from serve_app.errors import MissingWeights
from serve_app.storage.connection import boto_errors, in_words
from serve_app.storage.location import Location
from serve_app.storage.manifest import MANIFEST, Manifest, parse_manifest

logger = logging.getLogger("ray.serve")
Keep = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One object below the prefix."""

    key: str
    name: str  # relative to the prefix
    etag: str  # as S3 gives it, with its quotes
    size: int
    modified: datetime
    sha256: str | None = None  # from the manifest


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """The objects of one folder."""

    location: Location
    files: tuple[RemoteFile, ...]  # sorted by name
    left_out: int = 0  # objects below the prefix that are not among them

    @property
    def total_bytes(self) -> int:
        """Size of all of them."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """A name for exactly this content: other names, sizes or ETags give another."""
        lines = sorted(f"{file.name}\0{file.etag}\0{file.size}" for file in self.files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def list_folder(s3: Any, location: Location, *, needs: Sequence[str] = (), keep: Keep | None = None) -> RemoteFolder:
    """Return the objects below a prefix; where it has a manifest, the ones that this names.

    Args:
        s3: a boto3 client.
        location: bucket and prefix.
        needs: one of these names must be there.
        keep: what is wanted, by name; by default everything.

    Raises:
        MissingWeights: it cannot be listed, is empty or unfinished, or what is needed is not there.
    """
    listed = {file.name: file for file in list_objects(s3, location)}
    if listed.pop(MANIFEST, None) is not None:
        files = _described(listed, read_manifest(s3, location), location)
    else:
        files = list(listed.values())
    wanted = [file for file in files if keep is None or keep(file.name)]
    if needs and not {file.name for file in wanted} & set(needs):
        raise MissingWeights(f"source {location.uri!r}: there is no {' or '.join(needs)} below it", param="source")
    if not wanted:
        there = f"{len(listed)} objects are there"
        raise MissingWeights(f"source {location.uri!r} has nothing below it that can be used ({there})", param="source")
    ordered = tuple(sorted((_checked(file) for file in wanted), key=lambda file: file.name))
    _refuse_files_that_are_folders(ordered)
    return RemoteFolder(location, ordered, left_out=len(listed) - len(ordered))


def list_objects(s3: Any, location: Location) -> Iterator[RemoteFile]:
    """Yield the objects below a location, in the order of their keys.

    Raises:
        MissingWeights: it cannot be listed.
    """
    try:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=location.below):
            for entry in page.get("Contents", ()):
                name = entry["Key"].removeprefix(location.below)
                if name and not name.endswith("/"):  # consoles make "folders" this way
                    yield RemoteFile(entry["Key"], name, entry["ETag"], entry["Size"], entry["LastModified"])
    except boto_errors() as err:
        raise MissingWeights(f"source {location.uri!r} cannot be listed: {in_words(err)}", param="source") from err


def read_manifest(s3: Any, location: Location) -> Manifest:
    """Return the manifest of a prefix that has one. Raises MissingWeights: it cannot be read."""
    try:
        body: bytes = s3.get_object(Bucket=location.bucket, Key=location.below + MANIFEST)["Body"].read()
    except boto_errors() as err:
        raise MissingWeights(f"{location.uri}/{MANIFEST} cannot be read: {in_words(err)}", param="source") from err
    return parse_manifest(body, uri=location.uri)


def _described(listed: dict[str, RemoteFile], manifest: Manifest, location: Location) -> list[RemoteFile]:
    """Return the objects that the manifest names; an object of an older push beside them is no part of the folder."""
    uri, again = location.uri, "push the folder again"
    if not manifest.is_whole:
        raise MissingWeights(
            f"source {uri!r}: a push to it is running or was broken off; {again} (`manta models push`)", param="source"
        )
    if missing := sorted(manifest.files.keys() - listed.keys()):
        raise MissingWeights(f"source {uri!r}: {missing[0]!r} is in {MANIFEST}, but not there; {again}", param="source")
    for name, said in manifest.files.items():
        if (said.etag, said.size) != (listed[name].etag, listed[name].size):
            raise MissingWeights(
                f"object {listed[name].key!r} is not the one that {MANIFEST} describes: ETag {said.etag} and {said.size} bytes "
                f"expected, {listed[name].etag} and {listed[name].size} found; {again}, or delete {MANIFEST}",
                param="source",
            )
    if others := len(listed) - len(manifest.files):
        logger.info("%d objects below %s are not in its %s and are left out", others, uri, MANIFEST)
    return [replace(listed[name], sha256=said.sha256) for name, said in manifest.files.items()]


def _checked(file: RemoteFile) -> RemoteFile:
    """Return the file. Raises MissingWeights: its name is none that a file below a folder can have."""
    path = PurePosixPath(file.name)
    if path.is_absolute() or ".." in path.parts:
        raise MissingWeights(f"object {file.key!r} would be written outside its folder", param="source")
    if path.as_posix() != file.name or "\0" in file.name:
        raise MissingWeights(
            f"object {file.key!r} cannot be a file: its key has an empty part, or one that is `.`", param="source"
        )
    return file


def _refuse_files_that_are_folders(files: Sequence[RemoteFile]) -> None:
    names = {file.name for file in files}
    for file in files:
        for parent in PurePosixPath(file.name).parents:
            if parent.as_posix() in names:
                above = parent.as_posix()
                raise MissingWeights(
                    f"object {file.key!r} cannot be a file below {above!r}, which is an object itself", param="source"
                )
