"""Room for a download: what was unused for longest goes first, and what is in use stays."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve_app.errors import MissingWeights
from serve_app.storage.cache import CACHE, CACHE_GIB, DOOMED, KINDS, Cache, Entry, Slot, remove_tree
from serve_app.storage.disk import KEEP_FREE_BYTES, gib, too_full
from serve_app.storage.journal import progress_of
from serve_app.storage.locks import exclusive, try_lock, unlock

logger = logging.getLogger("ray.serve")

ROOM_LOCK = "room.lock"
STALE_S = 24 * 3600.0  # a partial download that nobody went on with for so long is thrown away


@dataclass(frozen=True, slots=True)
class Need:
    """What a download is going to take."""

    what: str  # for messages
    total_bytes: int
    there_bytes: int  # what an earlier attempt has left of it


def make_room(cache: Cache, slot: Slot, need: Need, *, clock: Callable[[], float] = time.time) -> None:
    """Evict until a download fits the limit and the disk. The caller holds the slot's lock.

    Raises:
        MissingWeights: it does not fit, even without all that is not in use; then nothing was evicted for it.
        OSError: the cache cannot be read or written.
    """
    with exclusive(cache.root / ROOM_LOCK):  # two downloads must not count on the same room
        _sweep(cache)
        others = [entry for entry in cache.entries() if entry.slot != slot]
        stale = [entry for entry in others if entry.is_partial and clock() - entry.used_at_s > STALE_S]
        kept = [entry for entry in others if not (entry in stale and evict(entry))]
        busy = [entry for entry in kept if entry.slot.is_in_use()]
        idle = [entry for entry in kept if entry not in busy]
        _check(cache, need, busy, idle=idle)
        for entry in idle:
            if _shortage(cache, need, kept) <= 0:
                return
            if evict(entry):
                kept.remove(entry)
        if any(entry in kept for entry in idle):
            _check(cache, need, kept, idle=())  # somebody has come to use what was idle


def evict(entry: Entry) -> bool:
    """Remove a folder from the cache; return False where somebody uses it. Raises OSError."""
    slot = entry.slot
    if (lock := try_lock(slot.lock)) is None:
        return False
    try:
        if (use := try_lock(slot.use)) is None:
            return False
        try:
            _remove(entry)
        finally:
            unlock(use)
    finally:
        unlock(lock)
    logger.info("evicted %s (%s) from the cache", entry.source, gib(entry.total_bytes))
    return True


def _remove(entry: Entry) -> None:
    slot = entry.slot
    if entry.is_partial and slot.folder.is_dir():
        remove_tree(slot.partial)  # left by a crash right after the folder was whole: the folder stays
        return
    for path in (slot.folder, slot.partial):
        if path.is_dir():
            remove_tree(path)
    for file in (slot.marker_file, slot.use, slot.lock):
        file.unlink(missing_ok=True)


def _sweep(cache: Cache) -> None:
    """Finish evictions that a crash has cut."""
    for kind in KINDS:
        for doomed in (cache.root / kind).glob(f"*{DOOMED}"):
            shutil.rmtree(doomed, ignore_errors=True)


def _check(cache: Cache, need: Need, busy: Sequence[Entry], *, idle: Sequence[Entry]) -> None:
    """Raise MissingWeights where evicting everything idle would not be enough."""
    in_use = sum(_size(entry) for entry in busy)
    if cache.limit_bytes is not None and need.total_bytes + in_use > cache.limit_bytes:
        raise MissingWeights(
            f"{need.what} takes {gib(need.total_bytes)}, and the cache may hold {gib(cache.limit_bytes)}, "
            f"of which {gib(in_use)} are in use; raise {CACHE_GIB}",
            param="source",
        )
    short = _disk_shortage(cache, need, busy)
    if short > sum(entry.total_bytes for entry in idle):
        fix = f"point {CACHE} to a larger disk"
        raise too_full(need.what, need.total_bytes - need.there_bytes, free=cache.free_bytes(cache.root), fix=fix)


def _shortage(cache: Cache, need: Need, kept: Sequence[Entry]) -> int:
    limit = cache.limit_bytes
    over = 0 if limit is None else need.total_bytes + sum(_size(entry) for entry in kept) - limit
    return max(over, _disk_shortage(cache, need, kept))


def _disk_shortage(cache: Cache, need: Need, kept: Sequence[Entry]) -> int:
    claimed = sum(_size(entry) - entry.total_bytes for entry in kept if entry.is_partial and entry.slot.is_in_use())
    wanted = need.total_bytes - need.there_bytes + claimed + KEEP_FREE_BYTES
    return wanted - cache.free_bytes(cache.root)


def _size(entry: Entry) -> int:
    """Return what an entry takes, or is going to take: another process may be downloading it."""
    if not entry.is_partial:
        return entry.total_bytes
    known = progress_of(entry.slot.partial / "journal")
    return max(entry.total_bytes, known[1] if known else 0)
