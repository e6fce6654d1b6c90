"""A folder into object storage, with a manifest that says what belongs to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.errors import MissingWeights
from serve_app.storage.connection import Tuning, boto_errors, in_words
from serve_app.storage.digests import sha256_of
from serve_app.storage.location import Location, is_utf8
from serve_app.storage.manifest import MANIFEST, Manifest, ManifestFile
from serve_app.storage.progress import OnProgress, ProgressCounter
from serve_app.storage.remote import RemoteFile, list_objects, read_manifest

logger = logging.getLogger("ray.serve")
PART_BYTES = 64 << 20
NOTE_BYTES = 1 << 30  # so often an unfinished push notes what it has sent


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to push."""

    path: Path
    name: str  # relative to the folder
    size: int
    changed_ns: int

    def is_unchanged(self) -> bool:
        """Return whether it still is what it was. Raises OSError."""
        now = self.path.stat()
        return (now.st_size, now.st_mtime_ns) == (self.size, self.changed_ns)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push has done."""

    sent: tuple[str, ...]
    skipped: tuple[str, ...]  # there already, with the same content
    sent_bytes: int


def local_files(folder: Path, *, needs: Sequence[str] = ()) -> list[LocalFile]:
    """Return the files below a folder, sorted, without hidden ones; links are followed to files, not to folders.

    Raises:
        MissingWeights: there is no such folder, nothing in it, none of the files that it needs, something that cannot be
            read, or a name that is not UTF-8.
    """
    try:
        if not folder.is_dir():
            raise MissingWeights(f"{folder} is no folder; name the one that holds the files to push", param="folder")
        paths = sorted(_walk(folder))
        files = [_local(path, folder) for path in paths if path.is_file() and path.name != MANIFEST]
    except OSError as err:
        raise _unreadable(err) from err
    if not files:
        raise MissingWeights(f"{folder} holds no files to push", param="folder")
    if needs and not {file.name for file in files} & set(needs):
        raise MissingWeights(
            f"{folder} holds no {' or '.join(needs)}, so it is no model and no adapter; push it with --any all the same",
            param="folder",
        )
    return files


def hash_files(files: Sequence[LocalFile], on_progress: OnProgress | None = None) -> dict[str, str]:
    """Return the sha256 of each file by its name; a core reads one file. Raises MissingWeights: one cannot be read."""
    counter = ProgressCounter(sum(file.size for file in files), on_progress)
    try:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            sums = pool.map(lambda file: sha256_of(file.path, counter.add), files)
            return dict(zip((file.name for file in files), sums, strict=True))
    except OSError as err:
        raise _unreadable(err) from err


class Push:
    """One push of a folder's files."""

    def __init__(self, s3: Any, location: Location, *, tuning: Tuning) -> None:
        self._s3 = s3
        self._location = location
        self._tuning = tuning

    def run(self, files: Sequence[LocalFile], sums: Mapping[str, str], on_progress: OnProgress | None = None) -> Pushed:
        """Upload what is not there yet, then the manifest. Until then readers are told that the push is not over.

        Args:
            files: what is below the folder.
            sums: the sha256 of each, by its name.
            on_progress: called from the threads that send, one call at a time.

        Raises:
            MissingWeights: the endpoint refuses, or a file changed meanwhile.
        """
        try:
            return self._run(files, sums, ProgressCounter(sum(file.size for file in files), on_progress))
        except OSError as err:
            raise _unreadable(err) from err
        except boto_errors() as err:
            raise MissingWeights(f"{self._location.uri} cannot be written: {in_words(err)}", param="source") from err

    def _run(self, files: Sequence[LocalFile], sums: Mapping[str, str], counter: ProgressCounter) -> Pushed:
        there = self._objects()
        old = self._known(there)
        kept = {file.name: old.files[file.name] for file in files if _is_there(file, sums[file.name], old=old, there=there)}
        to_send = [file for file in files if file.name not in kept]
        counter.add(sum(said.size for said in kept.values()))
        if to_send or not old.is_whole or kept.keys() != old.files.keys():
            self._write(Manifest(is_whole=False, files=kept))
            sent = self._send(to_send, sums, kept=kept, counter=counter)
            self._write(Manifest(is_whole=True, files=kept | sent))
        return Pushed(tuple(file.name for file in to_send), tuple(kept), sum(file.size for file in to_send))

    def _objects(self) -> dict[str, RemoteFile]:
        return {each.name: each for each in list_objects(self._s3, self._location)}

    def _known(self, there: Container[str]) -> Manifest:
        """Return what an earlier push says of what is there; one that was broken off says it too."""
        if MANIFEST in there:
            try:
                return read_manifest(self._s3, self._location)
            except MissingWeights as err:
                logger.warning("%s; it is replaced", err.message)
        return Manifest(is_whole=False)

    def _send(
        self,
        files: Sequence[LocalFile],
        sums: Mapping[str, str],
        *,
        kept: Mapping[str, ManifestFile],
        counter: ProgressCounter,
    ) -> dict[str, ManifestFile]:
        """Return what the manifest is to say of the files. A push that is broken off later need not send all of them again."""
        from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager

        parts = {"multipart_threshold": PART_BYTES, "multipart_chunksize": PART_BYTES}
        report = ProgressCallbackInvoker(counter.add_or_expect)
        ordered = sorted(files, key=lambda file: file.size, reverse=True)
        sent_bytes = noted_bytes = 0
        with create_transfer_manager(self._s3, TransferConfig(max_concurrency=self._tuning.threads, **parts)) as transfers:
            keys = (self._location.below + file.name for file in ordered)
            sending = [
                transfers.upload(str(file.path), self._location.bucket, key, subscribers=[report])
                for file, key in zip(ordered, keys, strict=True)
            ]
            for number, (file, upload) in enumerate(zip(ordered, sending, strict=True), start=1):
                upload.result()
                sent_bytes += file.size
                if sent_bytes - noted_bytes >= NOTE_BYTES:
                    noted_bytes = sent_bytes
                    self._write(Manifest(is_whole=False, files={**kept, **self._described(ordered[:number], sums)}))
        return self._described(ordered, sums)

    def _described(self, files: Sequence[LocalFile], sums: Mapping[str, str]) -> dict[str, ManifestFile]:
        there = self._objects()
        described = {}
        for file in files:
            found = there.get(file.name)
            if found is None or found.size != file.size or not file.is_unchanged():
                raise MissingWeights(f"{file.path} changed while it was pushed; push the folder again", param="folder")
            described[file.name] = ManifestFile(sums[file.name], file.size, found.etag)
        return described

    def _write(self, manifest: Manifest) -> None:
        key = self._location.below + MANIFEST
        self._s3.put_object(Bucket=self._location.bucket, Key=key, Body=manifest.to_json(), ContentType="application/json")


def _is_there(file: LocalFile, sha256: str, *, old: Manifest, there: Mapping[str, RemoteFile]) -> bool:
    said, found = old.files.get(file.name), there.get(file.name)
    if said is None or found is None:
        return False
    return (said.sha256, said.size) == (sha256, file.size) and (said.etag, said.size) == (found.etag, found.size)


def _unreadable(err: OSError) -> MissingWeights:
    return MissingWeights(f"{err.filename or 'a file'} cannot be read: {err.strerror or err}", param="folder")


def _walk(folder: Path) -> Iterator[Path]:
    for current, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(current, name) for name in names if not name.startswith("."))


def _refuse(err: OSError) -> None:
    raise err  # by default os.walk leaves out what it cannot read


def _local(path: Path, folder: Path) -> LocalFile:
    about = path.stat()
    name = path.relative_to(folder).as_posix()
    if not is_utf8(name):
        raise MissingWeights(f"the name of {str(path)!a} is not UTF-8, and object keys are; rename it", param="folder")
    return LocalFile(path, name, about.st_size, about.st_mtime_ns)
