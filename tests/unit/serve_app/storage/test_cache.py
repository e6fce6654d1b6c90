from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve_app.errors import MissingWeights
from serve_app.storage import eviction, journal
from serve_app.storage.cache import Cache, Marker, cache_from
from serve_app.storage.disk import GIB, KEEP_FREE_BYTES
from serve_app.storage.folders import Storage, fetch_folder
from serve_app.storage.locks import exclusive, try_lock, unlock
from tests.unit.serve_app.storage.objects import BLOCK, FILES, TOTAL, Gets, contents, put

MODEL = {"model.safetensors": b"m" * BLOCK}


def limited(storage: Storage, models: float) -> Storage:
    """Return the storage with room for so many models of one block."""
    return replace(storage, cache=replace(storage.cache, limit_bytes=int(models * BLOCK)))


def put_models(s3: Any, names: str) -> dict[str, str]:
    return {name: put(s3, name, {"model.safetensors": name.encode() * BLOCK}) for name in names}


def held(storage: Storage) -> list[str]:
    """Return the names of what the cache holds, unused for longest first."""
    return [entry.source.rpartition("/")[2] for entry in storage.cache.entries()]


def test_what_was_unused_for_longest_makes_room(s3: Any, storage: Storage) -> None:
    uris, storage = put_models(s3, "abcd"), limited(storage, 3)
    for name in "abcad":  # a is used again, so b is the oldest when d needs room
        fetch_folder(uris[name], storage=storage).close()
    assert held(storage) == ["c", "a", "d"]


def test_nothing_is_evicted_while_there_is_room(s3: Any, storage: Storage) -> None:
    uris, storage = put_models(s3, "abc"), limited(storage, 3)
    for uri in uris.values():
        fetch_folder(uri, storage=storage).close()
    assert held(storage) == ["a", "b", "c"]


def test_what_is_in_use_stays(s3: Any, storage: Storage) -> None:
    uris, storage = put_models(s3, "abc"), limited(storage, 2)
    oldest = fetch_folder(uris["a"], storage=storage)
    fetch_folder(uris["b"], storage=storage).close()
    fetch_folder(uris["c"], storage=storage).close()
    assert held(storage) == ["a", "c"]
    oldest.close()
    fetch_folder(uris["b"], storage=storage).close()
    assert held(storage) == ["c", "b"]


def test_what_cannot_fit_evicts_nothing_and_names_the_variable(s3: Any, storage: Storage) -> None:
    uris, storage = put_models(s3, "ab"), limited(storage, 1.5)
    with (
        fetch_folder(uris["a"], storage=storage),
        pytest.raises(MissingWeights, match=r"of which .* in use; raise MANTA_CACHE_GIB"),
    ):
        fetch_folder(uris["b"], storage=storage)
    big = put(s3, "big", {"one": b"x" * 2 * BLOCK})
    with pytest.raises(MissingWeights, match=r"takes 0\.125 MiB, and the cache may hold 0\.094 MiB"):
        fetch_folder(big, storage=storage)
    assert held(storage) == ["a"]


def test_a_full_disk_is_made_room_on_without_any_limit(s3: Any, storage: Storage) -> None:
    uris = put_models(s3, "abc")
    disk = 2 * BLOCK + KEEP_FREE_BYTES

    def free_bytes(root: Path) -> int:
        return disk - sum(entry.total_bytes for entry in storage.cache.entries())

    storage = replace(storage, cache=replace(storage.cache, free_bytes=free_bytes))
    for uri in uris.values():
        fetch_folder(uri, storage=storage).close()
    assert held(storage) == ["b", "c"]


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(s3: Any, storage: Storage) -> None:
    uri, gets = put(s3, "tiny"), Gets(s3)
    storage = replace(storage, cache=replace(storage.cache, free_bytes=lambda _: KEEP_FREE_BYTES + TOTAL - 1))
    with pytest.raises(
        MissingWeights, match=r"tiny needs 1\.\d+ MiB more .* 1\.00 GiB are free .* point MANTA_CACHE"
    ) as caught:
        fetch_folder(uri, storage=storage)
    assert (gets.ranges, held(storage), caught.value.param) == ([], [], "source")


def test_another_download_in_progress_has_a_claim_on_the_disk(s3: Any, storage: Storage) -> None:
    uris = put_models(s3, "ab")
    other = storage.cache.slot("models", "0" * 32)
    other.partial.mkdir()
    head = journal.JournalHead(block_bytes=BLOCK, total_bytes=BLOCK, boot="x")
    (other.partial / "journal").write_text(head.line())
    storage = replace(storage, cache=replace(storage.cache, free_bytes=lambda _: KEEP_FREE_BYTES + 2 * BLOCK - 8192))
    with exclusive(other.lock), pytest.raises(MissingWeights, match="MANTA_CACHE"):
        fetch_folder(uris["a"], storage=storage)
    with fetch_folder(uris["b"], storage=storage) as folder:  # nobody downloads the other one any more
        assert contents(folder.path) == {"model.safetensors": b"b" * BLOCK}


def test_a_partial_download_that_nobody_went_on_with_is_thrown_away(s3: Any, storage: Storage) -> None:
    old, young = (storage.cache.slot("models", digit * 32) for digit in "01")
    for slot in (old, young):
        slot.partial.mkdir()
        (slot.partial / "journal").touch()
    os.utime(old.partial / "journal", (0, 0))
    fetch_folder(put(s3, "a", MODEL), storage=storage)
    assert (old.partial.exists(), young.partial.exists()) == (False, True)


def test_a_partial_folder_that_a_crash_left_beside_the_whole_one_takes_nothing_with_it(s3: Any, storage: Storage) -> None:
    folder = fetch_folder(put(s3, "used", MODEL), storage=storage)
    wait_for_sync()
    folder.close()
    partial = folder.path.with_suffix(".partial")
    partial.mkdir()
    (partial / "journal").touch()
    os.utime(partial / "journal", (0, 0))
    fetch_folder(put(s3, "b", {"one": b"b"}), storage=storage).close()
    assert (partial.exists(), contents(folder.path), held(storage)) == (False, MODEL, ["used", "b"])


def test_an_eviction_that_was_cut_is_finished(s3: Any, storage: Storage) -> None:
    doomed = storage.cache.root / "models" / f"{'0' * 32}.evicted"
    doomed.mkdir(parents=True)
    (doomed / "half").touch()
    fetch_folder(put(s3, "a", MODEL), storage=storage)
    assert not doomed.exists()


def test_a_folder_that_the_machines_crash_may_have_cut_is_fetched_anew(
    s3: Any, storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = put(s3, "tiny")
    folder = fetch_folder(uri, storage=storage)
    wait_for_sync()
    marker = folder.path.with_suffix(".json")
    written = json.loads(marker.read_text())
    assert written["is_synced"] is True
    (tmp_path / "boot_id").write_text("another")
    monkeypatch.setattr(journal, "BOOT_ID", tmp_path / "boot_id")
    gets = Gets(s3)
    fetch_folder(uri, storage=storage).close()
    assert gets.ranges == []
    marker.write_text(json.dumps({**written, "is_synced": False}))
    (folder.path / "model.safetensors").write_bytes(b"\0" * 100)
    fetch_folder(uri, storage=storage).close()
    assert gets.ranges == []  # somebody reads it, on a machine that has not stopped: the disk is shared
    folder.close()
    assert contents(fetch_folder(uri, storage=storage).path) == FILES
    assert gets.total_bytes == TOTAL


def test_a_folder_of_an_earlier_version_is_taken_as_it_is(s3: Any, storage: Storage) -> None:
    uri = put(s3, "tiny")
    folder = fetch_folder(uri, storage=storage)
    wait_for_sync()
    folder.path.with_suffix(".json").unlink()
    gets = Gets(s3)
    fetch_folder(uri, storage=storage)
    assert (gets.ranges, held(storage)) == ([], ["tiny"])


def test_waiting_is_said_once_and_reports_how_far_the_other_is(
    s3: Any, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ray.serve")
    uri = put(s3, "tiny")
    is_half, go_on, seen = threading.Event(), threading.Event(), list[int]()

    def hold(progress: Any) -> None:
        if progress.done_bytes > TOTAL // 2:
            is_half.set()
            go_on.wait(60)

    def watch(progress: Any) -> None:
        seen.append(progress.done_bytes)
        go_on.set()

    first = threading.Thread(target=lambda: fetch_folder(uri, storage=storage, on_progress=hold))
    first.start()
    is_half.wait(60)
    assert contents(fetch_folder(uri, storage=storage, on_progress=watch).path) == FILES
    first.join()
    assert caplog.text.count("waiting for another process, or thread") == 1
    assert 0 < seen[0] <= seen[-1] == TOTAL


def test_a_lock_keeps_other_threads_of_the_process_out(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock"):
        assert try_lock(tmp_path / "lock") is None
        assert try_lock(tmp_path / "lock", shared=True) is None
    fds = [try_lock(tmp_path / "lock", shared=True) for _ in range(2)]
    assert None not in fds
    assert try_lock(tmp_path / "lock") is None
    for fd in fds:
        assert fd is not None
        unlock(fd)


def test_a_lock_whose_file_was_removed_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    flock = fcntl.flock
    removals = iter([path.unlink, lambda: None])

    def removed_meanwhile(fd: int, how: int) -> None:
        next(removals)()  # between opening the file and locking it
        flock(fd, how)

    monkeypatch.setattr("serve_app.storage.locks.fcntl.flock", removed_meanwhile)
    fd = try_lock(path)
    assert fd is not None
    assert os.fstat(fd).st_ino == path.stat().st_ino
    os.close(fd)


def test_the_cache_is_where_the_environment_says() -> None:
    env = {"MANTA_CACHE": "/big/cache", "MANTA_CACHE_GIB": "1.5"}
    assert cache_from(env) == Cache(Path("/big/cache"), limit_bytes=3 * GIB // 2)
    assert cache_from({}) == Cache(Path("~/.cache/manta").expanduser(), limit_bytes=None)


def test_a_cache_in_the_home_of_nobody_is_refused_by_name() -> None:
    with pytest.raises(MissingWeights, match="MANTA_CACHE: '~nosuch/x' is in the home of nobody here"):
        cache_from({"MANTA_CACHE": "~nosuch/x"})


@pytest.mark.parametrize("size", ["lots", "0", "-1", "nan", "inf", "10GiB"])
def test_a_limit_that_is_no_size_is_refused_by_name(size: str) -> None:
    with pytest.raises(MissingWeights, match=f"MANTA_CACHE_GIB must be a number of GiB above 0, .* '{size}'"):
        cache_from({"MANTA_CACHE_GIB": size})


def test_a_cache_that_cannot_be_written_names_the_variable(s3: Any, storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    storage = replace(storage, cache=Cache(tmp_path / "file" / "cache"))
    with pytest.raises(MissingWeights, match="point MANTA_CACHE to a folder that can"):
        fetch_folder(put(s3, "a", MODEL), storage=storage)


def wait_for_sync() -> None:
    for thread in threading.enumerate():
        if thread.name == "storage-sync":
            thread.join()


def test_what_comes_into_use_while_room_is_made_is_counted(s3: Any, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    uris, storage = put_models(s3, "ab"), limited(storage, 1.5)
    fetch_folder(uris["a"], storage=storage).close()
    monkeypatch.setattr(eviction, "evict", lambda _: False)  # another process has taken a lease just now
    with pytest.raises(MissingWeights, match="raise MANTA_CACHE_GIB"):
        fetch_folder(uris["b"], storage=storage)


def test_markers_that_cannot_be_written_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    slot = Cache(tmp_path).slot("models", "0" * 32)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        slot.write_marker(Marker("s3://b/p", 1, 1))
    assert list((tmp_path / "models").iterdir()) == []
