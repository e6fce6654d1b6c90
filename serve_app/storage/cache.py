"""The node's cache: folders named by their content, with a lock, a lease and a marker beside each."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from serve_app.errors import MissingWeights
from serve_app.storage.disk import GIB, FreeBytes, allocated_bytes, expanded, free_bytes
from serve_app.storage.journal import boot_id
from serve_app.storage.locks import try_lock, unlock

CACHE = "MANTA_CACHE"  # folder of downloads on this node
CACHE_GIB = "MANTA_CACHE_GIB"  # most that they may take
DEFAULT = "~/.cache/manta"
Kind = Literal["models", "documents"]
KINDS: tuple[Kind, ...] = ("models", "documents")
DOOMED = ".evicted"  # of folders that are being removed
DIGEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Marker:
    """What is known of a folder."""

    source: str
    total_bytes: int
    files: int
    boot: str = ""  # the run of the kernel in which it was written
    is_synced: bool = False  # whether it outlives that


class CachedFolder:
    """A folder that nobody evicts before `close()` or the end of the process, whichever comes first.

    Dropping the object does not give it up: a replica may keep only the path.
    """

    def __init__(self, path: Path, lease: int) -> None:
        self.path = path
        self._lease: int | None = lease

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __enter__(self) -> CachedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let it be evicted."""
        if self._lease is not None:
            os.close(self._lease)
            self._lease = None


@dataclass(frozen=True, slots=True)
class Slot:
    """The places of one folder in the cache."""

    folder: Path  # whole and verified, or not there

    @property
    def partial(self) -> Path:
        """Where it is downloaded to."""
        return self.folder.with_suffix(".partial")

    @property
    def lock(self) -> Path:
        """Held alone by whoever makes or removes the folder."""
        return self.folder.with_suffix(".lock")

    @property
    def use(self) -> Path:
        """Held, with others, by whoever reads it; its time of change is the folder's last use."""
        return self.folder.with_suffix(".use")

    @property
    def marker_file(self) -> Path:
        """Its marker."""
        return self.folder.with_suffix(".json")

    def marker(self) -> Marker | None:
        """Return what is known of the folder; None where an earlier version made it, or a crash has cut the marker."""
        try:
            return Marker(**json.loads(self.marker_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write_marker(self, marker: Marker) -> None:
        """Replace the marker, and wait until that is on the disk. Raises OSError."""
        descriptor, fresh = tempfile.mkstemp(dir=self.folder.parent, prefix=f"{self.folder.name}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(asdict(marker)))
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.marker_file)
        except BaseException:
            os.unlink(fresh)
            raise

    def is_whole(self) -> bool:
        """Return whether the folder is there, and was on the disk before the machine last started."""
        if not self.folder.is_dir():
            return False
        marker = self.marker()
        is_lasting = marker is None or marker.is_synced or marker.boot == boot_id()
        return is_lasting or self.is_read()  # read by another node: the disk is shared

    def lease(self) -> CachedFolder:
        """Return the folder, leased and used now. The caller holds the lock. Raises OSError."""
        fd = try_lock(self.use, shared=True)
        while fd is None:  # whoever looks whether it is in use holds this for a moment
            fd = try_lock(self.use, shared=True)
        os.utime(fd)
        return CachedFolder(self.folder, fd)

    def is_read(self) -> bool:
        """Return whether somebody has a lease. Raises OSError."""
        return _is_held(self.use)

    def is_in_use(self) -> bool:
        """Return whether somebody reads, makes or removes the folder. Raises OSError."""
        return _is_held(self.lock) or self.is_read()


@dataclass(frozen=True, slots=True)
class Entry:
    """What the cache holds of one folder."""

    slot: Slot
    kind: Kind
    total_bytes: int  # of a partial one: what it takes now
    used_at_s: float  # since the epoch
    is_partial: bool
    source: str = "unknown"


@dataclass(frozen=True, slots=True)
class Cache:
    """The downloads of one node."""

    root: Path
    limit_bytes: int | None = None  # None: as much as the disk holds
    free_bytes: FreeBytes = field(default=free_bytes)

    def slot(self, kind: Kind, digest: str) -> Slot:
        """Return the places of a folder; the folder around them is made. Raises MissingWeights: it cannot be."""
        try:
            (self.root / kind).mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise MissingWeights(
                f"the cache {str(self.root)!r} cannot be written: {err.strerror}; point {CACHE} to a folder that can",
                param="source",
            ) from err
        return Slot(self.root / kind / digest)

    def entries(self) -> list[Entry]:
        """Return what is there, the one unused for longest first."""
        found = [entry for kind in KINDS for entry in self._of_kind(kind)]
        return sorted(found, key=lambda entry: entry.used_at_s)

    def _of_kind(self, kind: Kind) -> Iterator[Entry]:
        folder = self.root / kind
        for path in folder.iterdir() if folder.is_dir() else ():
            if DIGEST.fullmatch(path.stem) and path.suffix in ("", ".partial") and path.is_dir():
                try:
                    yield _entry(path, kind)
                except FileNotFoundError:
                    continue  # evicted since


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    if (fd := try_lock(path)) is None:
        return True
    unlock(fd)
    return False


def _entry(path: Path, kind: Kind) -> Entry:
    slot, is_partial = Slot(path.with_suffix("")), path.suffix == ".partial"
    marker = slot.marker()
    if is_partial:
        journal = path / "journal"
        used = (journal if journal.exists() else path).stat().st_mtime
        size = allocated_bytes(path)
    else:
        used = (slot.use if slot.use.exists() else path).stat().st_mtime
        size = marker.total_bytes if marker else allocated_bytes(path)
    return Entry(slot, kind, size, used, is_partial, marker.source if marker else "unknown")


def remove_tree(path: Path) -> None:
    """Remove a folder so that a crash in the middle leaves nothing that looks whole. Raises OSError."""
    doomed = path.with_name(f"{path.name}{DOOMED}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def cache_from(env: Mapping[str, str] | None = None) -> Cache:
    """Return the cache that the environment names.

    Raises:
        MissingWeights: MANTA_CACHE_GIB is no size, or MANTA_CACHE is in the home of nobody.
    """
    env = os.environ if env is None else env
    root = expanded(Path(env.get(CACHE) or DEFAULT), param=CACHE).absolute()
    return Cache(root, limit_bytes=_limit(env.get(CACHE_GIB, "").strip()))


def _limit(text: str) -> int | None:
    if not text:
        return None
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not (math.isfinite(size) and size > 0):
        raise MissingWeights(f"{CACHE_GIB} must be a number of GiB above 0, such as 200, and it is {text!r}", param=CACHE_GIB)
    return int(size * GIB)
