from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve_app.errors import MissingWeights
from serve_app.storage import download, journal
from serve_app.storage.folders import Storage, fetch_folder, pull
from serve_app.storage.location import parse_location
from serve_app.storage.progress import Progress
from serve_app.storage.remote import list_folder
from tests.unit.serve_app.storage.objects import BLOCK, BUCKET, FILES, SHARD, TOTAL, TUNING, Gets, contents, put

ROOT = Path(__file__).parents[4]


def cached(cache: Path) -> list[str]:
    """Return what stands under models/ in the cache, other than locks and markers."""
    return sorted(path.suffix for path in (cache / "models").iterdir() if path.is_dir())


def test_every_object_arrives_as_it_is_in_ranges_of_several(s3: Any, storage: Storage) -> None:
    gets = Gets(s3)
    with fetch_folder(put(s3, "tiny"), storage=storage) as folder:
        assert contents(folder.path) == FILES
    assert gets.total_bytes == TOTAL
    assert max(count for _, count in gets.ranges) <= TUNING.most_range_bytes
    assert [key for key, _ in gets.ranges].count("tiny/model.safetensors") > TUNING.threads


def test_what_is_there_is_not_fetched_again(s3: Any, storage: Storage) -> None:
    uri = put(s3, "tiny")
    first = fetch_folder(uri, storage=storage)
    gets = Gets(s3)
    second = fetch_folder(f"{uri}/", storage=storage)
    assert (first.path, gets.ranges) == (second.path, [])


def test_progress_rises_from_nothing_to_all(s3: Any, storage: Storage) -> None:
    seen: list[Progress] = []
    fetch_folder(put(s3, "tiny"), storage=storage, on_progress=seen.append)
    done = [progress.done_bytes for progress in seen]
    assert done == sorted(done)
    assert (done[0], done[-1], {progress.total_bytes for progress in seen}) == (0, TOTAL, {TOTAL})


def test_a_callback_that_raises_ends_the_download(s3: Any, storage: Storage) -> None:
    def refuse(progress: Progress) -> None:
        if progress.done_bytes > TOTAL // 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        fetch_folder(put(s3, "tiny"), storage=storage, on_progress=refuse)
    assert cached(storage.cache.root) == [".partial"]


def test_changed_weights_get_a_folder_of_their_own(s3: Any, storage: Storage) -> None:
    before = fetch_folder(put(s3, "tiny"), storage=storage)
    after = fetch_folder(put(s3, "tiny", {"model.safetensors": b"new"}), storage=storage)
    assert (contents(before.path), contents(after.path)) == (FILES, {**FILES, "model.safetensors": b"new"})


def test_a_killed_download_goes_on_with_what_is_missing(s3: Any, storage: Storage) -> None:
    uri = put(s3, "tiny")
    script = [sys.executable, str(Path(__file__).with_name("downloader.py")), uri]
    killed = subprocess.run([*script, str(TOTAL // 2)], cwd=ROOT, env=environ(), capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert cached(storage.cache.root) == [".partial"]
    gets, seen = Gets(s3), list[Progress]()
    with fetch_folder(uri, storage=storage, on_progress=seen.append) as folder:
        assert contents(folder.path) == FILES
    # A thread loses at most the block that it was in.
    assert 0 < gets.total_bytes <= TOTAL - TOTAL // 2 + TUNING.threads * BLOCK
    assert (seen[0].done_bytes, seen[-1].done_bytes) == (TOTAL - gets.total_bytes, TOTAL)


def test_a_machine_that_was_started_anew_trusts_no_partial_download(
    s3: Any, storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = put(s3, "tiny")
    with pytest.raises(RuntimeError):
        fetch_folder(uri, storage=storage, on_progress=raise_at(TOTAL // 2))
    (tmp_path / "boot_id").write_text("another")
    monkeypatch.setattr(journal, "BOOT_ID", tmp_path / "boot_id")
    gets = Gets(s3)
    assert contents(fetch_folder(uri, storage=storage).path) == FILES
    assert gets.total_bytes == TOTAL


def test_two_processes_download_once(s3: Any, storage: Storage) -> None:
    uri = put(s3, "tiny")
    script = [sys.executable, str(Path(__file__).with_name("downloader.py")), uri]
    processes = [subprocess.Popen(script, cwd=ROOT, env=environ(), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].split() for process in processes]
    assert sorted(int(count) for count, _ in said) == [0, TOTAL]
    assert said[0][1] == said[1][1]


def test_two_threads_download_once(s3: Any, storage: Storage) -> None:
    uri, gets = put(s3, "tiny"), Gets(s3)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(fetch_folder, uri, storage=storage) for _ in range(2)]
    assert {job.result().path for job in jobs} == {jobs[0].result().path}
    assert gets.total_bytes == TOTAL


def test_an_object_that_comes_corrupt_once_is_fetched_again(s3: Any, storage: Storage) -> None:
    damage = Damage(times=1)
    gets, seen = Gets(s3, damage), list[Progress]()
    folder = fetch_folder(put(s3, "tiny"), storage=storage, on_progress=seen.append)
    assert contents(folder.path) == FILES
    assert gets.total_bytes == TOTAL + len(SHARD)
    assert seen[-1].done_bytes == TOTAL


def test_an_object_that_stays_corrupt_is_named_and_never_shown(s3: Any, storage: Storage) -> None:
    uri = put(s3, "tiny")
    Gets(s3, Damage(times=2))
    with pytest.raises(
        MissingWeights, match=r"'tiny/model.safetensors' is corrupt, twice: expected md5 \w{32}, found md5 \w{32}"
    ):
        fetch_folder(uri, storage=storage)
    assert cached(storage.cache.root) == [".partial"]
    again = Gets(s3)  # the damage is spent
    assert contents(fetch_folder(uri, storage=storage).path) == FILES
    assert again.keys() == {"tiny/model.safetensors"}


def test_an_object_that_changes_meanwhile_is_named(s3: Any, storage: Storage) -> None:
    uri = put(s3, "tiny")

    def replace(progress: Progress) -> None:
        if progress.done_bytes == 0:
            s3.put_object(Bucket=BUCKET, Key="tiny/model.safetensors", Body=b"x" * len(SHARD))

    with pytest.raises(MissingWeights, match=r"'tiny/model.safetensors' was changed or removed"):
        fetch_folder(uri, storage=storage, on_progress=replace)
    assert ".partial" in cached(storage.cache.root)[0]


def test_a_stream_that_breaks_goes_on_where_it_was(s3: Any, storage: Storage) -> None:
    cut: list[int] = []

    def change(key: str, start: int, data: bytes) -> bytes:
        if key.endswith("model.safetensors") and not cut:
            cut.append(start)
            return data[: BLOCK + 10]
        return data

    gets = Gets(s3, change)
    assert contents(fetch_folder(put(s3, "tiny"), storage=storage).path) == FILES
    assert gets.total_bytes < TOTAL + TUNING.most_range_bytes


def test_a_stream_that_never_gets_on_is_given_up(s3: Any, storage: Storage) -> None:
    gets = Gets(s3, lambda _key, _start, data: data[:10])
    with pytest.raises(MissingWeights, match=r"'tiny/one': the stream ended .* bytes early \(3 attempts\)"):
        fetch_folder(put(s3, "tiny", {"one": b"x" * BLOCK}), storage=storage)
    assert [key for key, _ in gets.ranges] == ["tiny/one"] * TUNING.attempts


def test_the_parts_of_a_multipart_object_are_verified(s3: Any, storage: Storage) -> None:
    body = put_parts(s3, "big/one", part_mib=6)
    Gets(s3, Damage(times=2, key="big/one"))
    with pytest.raises(MissingWeights, match=r"'big/one' is corrupt, twice: expected ETag \w{32}-2, found ETag \w{32}-2"):
        fetch_folder(f"s3://{BUCKET}/big", storage=storage)
    assert contents(fetch_folder(f"s3://{BUCKET}/big", storage=storage).path) == {"one": body}


@pytest.mark.parametrize(("part_mib", "is_known"), [(5, True), (6, False)], ids=["a-usual-size", "no-usual-size"])
def test_an_endpoint_that_does_not_tell_the_size_of_parts_leaves_the_usual_ones(
    s3: Any, storage: Storage, part_mib: int, is_known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    put_parts(s3, "big/one", part_mib=part_mib)
    Gets(s3).refuse_heads()
    fetch_folder(f"s3://{BUCKET}/big", storage=storage)
    assert ("parts of an unknown size" not in caplog.text) is is_known


def test_an_object_under_a_key_of_its_own_is_taken_by_its_size(s3: Any, storage: Storage) -> None:
    s3.put_object(Bucket=BUCKET, Key="tiny/one", Body=b"x" * BLOCK, ServerSideEncryption="aws:kms")
    Gets(s3, lambda _key, _start, data: b"y" * len(data))  # stands for an ETag that is no MD5 of the content
    assert contents(fetch_folder(f"s3://{BUCKET}/tiny", storage=storage).path) == {"one": b"y" * BLOCK}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=["disk", "quota"])
def test_a_disk_that_fills_up_leaves_nothing(s3: Any, storage: Storage, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    written: list[int] = []

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        written.append(len(data))
        if len(written) > 3:
            raise OSError(code, os.strerror(code))
        return os.pwrite(fd, data, offset)

    monkeypatch.setattr(download, "pwrite", pwrite)
    with pytest.raises(MissingWeights, match=r"needs [\d.]+ MiB more .* [\d.]+ GiB are free .* MANTA_CACHE"):
        fetch_folder(put(s3, "tiny"), storage=storage)
    assert [path.name for path in (storage.cache.root / "models").iterdir() if path.suffix != ".lock"] == []


def test_a_folder_of_ones_own_is_filled_whole_or_not_at_all(s3: Any, storage: Storage, tmp_path: Path) -> None:
    remote = list_folder(s3, parse_location(put(s3, "tiny")))
    folder = tmp_path / "mine" / "tiny"
    with pytest.raises(RuntimeError):
        pull(remote, storage, folder=folder, on_progress=raise_at(TOTAL // 2))
    assert not folder.exists()
    gets = Gets(s3)
    assert contents(pull(remote, storage, folder=folder)) == FILES
    assert gets.total_bytes < TOTAL
    assert list(folder.parent.iterdir()) == [folder]
    with pytest.raises(MissingWeights, match="is there already"):
        pull(remote, storage, folder=folder)
    assert list(folder.parent.iterdir()) == [folder]


def put_parts(s3: Any, key: str, *, part_mib: int) -> bytes:
    """Upload a body in two parts, and return it."""
    body = random.Random(1).randbytes(part_mib * 2**20 + 99)  # noqa: S311
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    parts = []
    for number, part in enumerate((body[:-99], body[-99:]), start=1):
        made = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": made["ETag"]})
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    return body


class Damage:
    """Flips a bit in the middle of an object, some times."""

    def __init__(self, *, times: int, key: str = "tiny/model.safetensors") -> None:
        self._times = times
        self._key = key

    def __call__(self, key: str, start: int, data: bytes) -> bytes:
        if key != self._key or start > 0 or not self._times:
            return data
        self._times -= 1
        return data[:7] + bytes([data[7] ^ 1]) + data[8:]


def raise_at(limit: int) -> Any:
    def report(progress: Progress) -> None:
        if progress.done_bytes >= limit:
            raise RuntimeError("stopped")

    return report


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_file_that_vanished_from_a_partial_download_is_fetched_again(s3: Any, storage: Storage) -> None:
    uri = put(s3, "tiny")
    with pytest.raises(RuntimeError):
        fetch_folder(uri, storage=storage, on_progress=raise_at(TOTAL // 2))
    [partial] = (storage.cache.root / "models").glob("*.partial")
    (partial / "files" / "model.safetensors").unlink()
    assert contents(fetch_folder(uri, storage=storage).path) == FILES


def test_a_disk_that_cannot_be_written_is_said(s3: Any, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def pwrite(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(download, "pwrite", pwrite)
    with pytest.raises(MissingWeights, match=r"cannot be written: input/output error; point MANTA_CACHE"):
        fetch_folder(put(s3, "tiny"), storage=storage)


def test_a_folder_on_a_disk_that_is_too_small_is_not_begun(s3: Any, storage: Storage, tmp_path: Path) -> None:
    remote = list_folder(s3, parse_location(put(s3, "tiny")))
    storage = replace(storage, cache=replace(storage.cache, free_bytes=lambda _: TOTAL))
    with pytest.raises(MissingWeights, match="name a folder on a larger disk"):
        pull(remote, storage, folder=tmp_path / "mine")
    (tmp_path / "file").touch()
    with pytest.raises(MissingWeights, match="name a folder that can"):
        pull(remote, storage, folder=tmp_path / "file" / "mine")
