"""Folders from object storage: into the node's cache with a lease, or into a folder of one's own."""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serve_app.errors import MissingWeights
from serve_app.storage.cache import CACHE, Cache, CachedFolder, Kind, Marker, Slot, cache_from, remove_tree
from serve_app.storage.connection import Tuning, connect
from serve_app.storage.disk import FULL, KEEP_FREE_BYTES, allocated_bytes, expanded, sync, sync_tree, too_full
from serve_app.storage.download import JOURNAL, Download
from serve_app.storage.eviction import Need, make_room
from serve_app.storage.journal import boot_id, progress_of
from serve_app.storage.location import parse_location
from serve_app.storage.locks import exclusive
from serve_app.storage.manifest import MANIFEST
from serve_app.storage.progress import OnProgress, Progress
from serve_app.storage.remote import RemoteFolder, list_folder
from serve_app.storage.shelf import ANYTHING

logger = logging.getLogger("ray.serve")
OWN = re.compile(r"\.manta\.[0-9a-f]+\.(partial|lock)")  # of a pull into a folder that was there
LAST = (*ANYTHING, MANIFEST)  # without these it is no model


@dataclass(frozen=True, slots=True)
class Storage:
    """What a transfer works with: an S3 client, this node's cache, and sizes."""

    s3: Any
    cache: Cache
    tuning: Tuning = field(default_factory=Tuning)


def open_storage() -> Storage:
    """Return the storage that the environment names. Raises MissingWeights: it names none that can be used."""
    tuning = Tuning()
    return Storage(connect(tuning), cache_from(), tuning)


def fetch_folder(
    uri: str, *, needs: Sequence[str] = (), on_progress: OnProgress | None = None, storage: Storage | None = None
) -> CachedFolder:
    """Return ``s3://bucket/prefix`` as a folder of this node, leased; what is there already is not downloaded.

    Processes and threads that want the same content wait for the one that downloads it. ``on_progress`` is called from
    the threads that download, one call at a time; while waiting, about how far the other process is.

    Args:
        uri: bucket and prefix.
        needs: one of these files must be there, such as config.json.
        on_progress: where to report; by default nowhere.
        storage: by default what the environment names.

    Raises:
        MissingWeights: there is nothing there, it cannot be read, is corrupt, or does not fit the disk.
    """
    storage = storage or open_storage()
    return fetch(list_folder(storage.s3, parse_location(uri), needs=needs), storage, on_progress=on_progress)


def fetch(
    remote: RemoteFolder, storage: Storage, *, kind: Kind = "models", on_progress: OnProgress | None = None
) -> CachedFolder:
    """Return listed objects as a folder of this node, as `fetch_folder` does."""
    slot = storage.cache.slot(kind, remote.digest)
    waiting = _Waiting(slot, remote.location.uri, on_progress)
    try:
        with exclusive(slot.lock, on_wait=waiting.report):
            if not slot.is_whole():
                _fill(slot, remote, storage, on_progress=on_progress)
            if (marker := slot.marker()) is None:  # an earlier version of Manta has made the folder
                marker = Marker(remote.location.uri, remote.total_bytes, len(remote.files), is_synced=True)
                slot.write_marker(marker)
            lease = slot.lease()
    except OSError as err:
        raise _unwritable(err, storage.cache.root, fix=f"point {CACHE} to a folder that can") from err
    waiting.finish(remote.total_bytes)
    if not marker.is_synced and marker.boot == boot_id():
        _in_background(lambda: _sync(slot, marker))
    return lease


def pull(remote: RemoteFolder, storage: Storage, *, folder: Path, on_progress: OnProgress | None = None) -> Path:
    """Download listed objects into a folder, which is new or empty, and return it.

    A new one appears whole or not at all. In one that is there, the file by which it is known for a model is moved in last.

    Raises:
        MissingWeights: as `fetch_folder`, or the folder holds something.
    """
    folder = expanded(folder, param="folder").absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial_of(folder, remote.digest)
        with exclusive(lock := partial.with_suffix(".lock")):
            if _is_taken(folder):
                lock.unlink()
                raise MissingWeights(f"{folder} is there already; name a new or an empty folder", param="folder")
            _require_room(remote, partial, storage.cache.free_bytes)
            fix = "name a folder on a larger disk"
            files = _download(remote, partial, storage, on_progress=on_progress, fix=fix)
            sync_tree(files)
            _show(files, folder, is_inside=partial.parent == folder)
            shutil.rmtree(partial)
            sync(partial.parent)
            lock.unlink()
    except OSError as err:
        raise _unwritable(err, folder, fix="name a folder that can") from err
    return folder


def _partial_of(folder: Path, digest: str) -> Path:
    """Return where to download to: inside a folder that is there, for nothing can be renamed to a mount point; else beside."""
    if folder.is_dir():
        return folder / f".manta.{digest}.partial"
    return folder.with_name(f".{folder.name}.{digest}.partial")


def _is_taken(folder: Path) -> bool:
    if folder.is_dir():
        return not all(OWN.fullmatch(each.name) for each in folder.iterdir())
    return os.path.lexists(folder)  # a link to nothing is in the way too


def _show(files: Path, folder: Path, *, is_inside: bool) -> None:
    if not is_inside:
        files.rename(folder)
        return
    for entry in sorted(files.iterdir(), key=lambda entry: entry.name in LAST):
        entry.rename(folder / entry.name)


def _fill(slot: Slot, remote: RemoteFolder, storage: Storage, *, on_progress: OnProgress | None) -> None:
    uri, total = remote.location.uri, remote.total_bytes
    if slot.folder.is_dir():
        remove_tree(slot.folder)  # the machine stopped before it was synced
    make_room(storage.cache, slot, Need(uri, total, allocated_bytes(slot.partial)))
    # Before the data: a folder that is there after a crash of the machine has a marker which says so.
    slot.write_marker(Marker(uri, total, len(remote.files), boot=boot_id()))
    logger.info("downloading %s: %d objects, %.1f MiB", uri, len(remote.files), total / 2**20)
    try:
        files = _download(remote, slot.partial, storage, on_progress=on_progress, fix=f"point {CACHE} to a larger disk")
    except MissingWeights:
        if not slot.partial.exists():
            slot.marker_file.unlink()
        raise
    files.rename(slot.folder)
    shutil.rmtree(slot.partial)


def _download(remote: RemoteFolder, partial: Path, storage: Storage, *, on_progress: OnProgress | None, fix: str) -> Path:
    """Return the folder of verified files. On a full disk the partial folder is removed."""
    try:
        return Download(storage.s3, remote, partial, tuning=storage.tuning).run(on_progress)
    except OSError as err:
        if err.errno not in FULL:
            raise
        missing = remote.total_bytes - allocated_bytes(partial)
        free = storage.cache.free_bytes(partial.parent)
        shutil.rmtree(partial, ignore_errors=True)
        raise too_full(remote.location.uri, missing, free=free, fix=f"what was there of it is removed; {fix}") from err


def _require_room(remote: RemoteFolder, partial: Path, free_bytes: Callable[[Path], int]) -> None:
    missing, free = remote.total_bytes - allocated_bytes(partial), free_bytes(partial.parent)
    if missing + KEEP_FREE_BYTES > free:
        raise too_full(remote.location.uri, missing, free=free, fix="name a folder on a larger disk")


def _unwritable(err: OSError, folder: Path, *, fix: str) -> MissingWeights:
    why = f"{(err.strerror or str(err)).lower()}{f' ({err.filename})' if err.filename else ''}"
    return MissingWeights(f"{folder} cannot be written: {why}; {fix}", param="source")


class _Waiting:
    """Says that another process downloads, and how far it is."""

    def __init__(self, slot: Slot, uri: str, on_progress: OnProgress | None) -> None:
        self._slot = slot
        self._uri = uri
        self._on_progress = on_progress
        self._is_said = False

    def report(self) -> None:
        """Log it once; report the other's progress."""
        if not self._is_said:
            logger.info("waiting for another process, or thread, that downloads %s", self._uri)
            self._is_said = True
        known = progress_of(self._slot.partial / JOURNAL)
        if known and self._on_progress:
            self._on_progress(Progress(*known))

    def finish(self, total_bytes: int) -> None:
        """Report that all is there, if there was anything to wait for."""
        if self._is_said and self._on_progress:
            self._on_progress(Progress(total_bytes, total_bytes))


def _sync(slot: Slot, marker: Marker) -> None:
    """Bring a folder to the disk, so that the next start of the machine finds it whole."""
    try:
        sync_tree(slot.folder)
        slot.write_marker(replace(marker, is_synced=True))
    except OSError as err:
        logger.info("%s is not synced: %s; it is downloaded again after the machine's next start", slot.folder, err)


def _in_background(work: Callable[[], None]) -> None:
    # Not a daemon: a command that ends waits for it, and a replica lives longer anyway.
    threading.Thread(target=work, name="storage-sync").start()
