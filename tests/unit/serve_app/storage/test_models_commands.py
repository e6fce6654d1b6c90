from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from serve_app.cli import app
from serve_app.errors import CommandError, MissingWeights
from serve_app.storage import upload
from serve_app.storage.folders import Storage, fetch_folder
from serve_app.storage.location import parse_location
from serve_app.storage.manifest import MANIFEST, Manifest, parse_manifest
from serve_app.storage.upload import Push, hash_files, local_files
from tests.unit.serve_app.storage.objects import BLOCK, BUCKET, FILES, TUNING, Gets, contents, put

URI = f"s3://{BUCKET}/pushed"
MODEL = {"config.json": b"{}", "one.safetensors": b"1" * BLOCK, "sub/two.safetensors": b"2" * BLOCK}


def manta(*arguments: object) -> Result:
    """Run the command; what it raises beyond its exit code is raised here."""
    return CliRunner().invoke(app, ["models", *map(str, arguments)], catch_exceptions=False)


def write(folder: Path, files: dict[str, bytes] = MODEL) -> Path:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


def body_of(s3: Any, name: str) -> bytes:
    body: bytes = s3.get_object(Bucket=BUCKET, Key=f"pushed/{name}")["Body"].read()
    return body


def test_what_is_pushed_comes_back_as_it_was(s3: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {**MODEL, ".git/HEAD": b"", ".hidden": b""})
    assert "3 files sent" in manta("push", folder, URI).stdout
    pulled = manta("pull", URI, tmp_path / "back")
    assert pulled.stdout == f"{tmp_path / 'back'}\n"
    assert contents(tmp_path / "back") == MODEL


def test_without_a_folder_a_pull_goes_into_the_cache(s3: Any, tmp_path: Path) -> None:
    pulled = manta("pull", put(s3, "tiny"))
    assert pulled.stdout.startswith(str(tmp_path / "cache" / "models"))
    assert contents(Path(pulled.stdout.strip())) == FILES


def test_a_second_push_sends_only_what_changed(s3: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    manta("push", folder, URI)
    assert "0 files sent (0.0 MB), 3 were there" in manta("push", folder, URI).stdout
    write(folder, {"one.safetensors": b"3" * BLOCK})
    assert "1 files sent (0.1 MB), 2 were there" in manta("push", folder, URI).stdout
    assert body_of(s3, "one.safetensors") == b"3" * BLOCK


def test_a_file_that_somebody_else_overwrote_is_sent_again(s3: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    manta("push", folder, URI)
    put(s3, "pushed", {"one.safetensors": b"x" * BLOCK})
    assert "1 files sent" in manta("push", folder, URI).stdout


def test_what_a_later_push_has_no_more_is_not_downloaded(s3: Any, storage: Storage, tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    manta("push", folder, URI)
    (folder / "one.safetensors").unlink()
    manta("push", folder, URI)
    with fetch_folder(URI, storage=storage) as fetched:
        assert sorted(contents(fetched.path)) == ["config.json", "sub/two.safetensors"]


def test_a_push_that_is_not_over_is_no_model(s3: Any, storage: Storage, tmp_path: Path) -> None:
    manta("push", write(tmp_path / "model"), URI)
    whole = parse_manifest(body_of(s3, MANIFEST), uri=URI)
    put(s3, "pushed", {MANIFEST: Manifest(is_whole=False, files=whole.files).to_json()})
    with pytest.raises(MissingWeights, match="a push to it is running or was broken off"):
        fetch_folder(URI, storage=storage)
    assert "0 files sent" in manta("push", tmp_path / "model", URI).stdout
    fetch_folder(URI, storage=storage).close()


def test_while_files_are_sent_the_manifest_says_so(s3: Any, tmp_path: Path) -> None:
    seen: list[bool] = []

    def look(params: dict[str, Any], **_: Any) -> None:
        if not params["Key"].endswith(MANIFEST):
            seen.append(parse_manifest(body_of(s3_of_its_own, MANIFEST), uri=URI).is_whole)

    from serve_app.commands import models_push
    from serve_app.storage.connection import connect

    s3_of_its_own, pushing = connect(), connect()
    pushing.meta.events.register("provide-client-params.s3.PutObject", look)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models_push, "connect", lambda _: pushing)
        manta("push", write(tmp_path / "model"), URI)
    assert seen == [False] * len(MODEL)
    assert parse_manifest(body_of(s3, MANIFEST), uri=URI).is_whole


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"one.safetensors": b"x" * BLOCK}, r"'pushed/one.safetensors' is not the one that manta-manifest.json describes"),
        ({MANIFEST: b"nonsense"}, r"manta-manifest.json cannot be read"),
    ],
    ids=["object", "manifest"],
)
def test_an_object_that_is_not_what_was_pushed_is_refused(
    s3: Any, storage: Storage, tmp_path: Path, damage: dict[str, bytes], message: str
) -> None:
    manta("push", write(tmp_path / "model"), URI)
    put(s3, "pushed", damage)
    with pytest.raises(MissingWeights, match=message):
        fetch_folder(URI, storage=storage)


def test_an_object_of_the_manifest_that_is_gone_is_named(s3: Any, storage: Storage, tmp_path: Path) -> None:
    manta("push", write(tmp_path / "model"), URI)
    s3.delete_object(Bucket=BUCKET, Key="pushed/one.safetensors")
    with pytest.raises(MissingWeights, match=r"'one.safetensors' is in manta-manifest.json, but not there"):
        fetch_folder(URI, storage=storage)


def test_a_pushed_object_is_verified_by_its_sha256(s3: Any, storage: Storage, tmp_path: Path) -> None:
    manta("push", write(tmp_path / "model"), URI)
    Gets(s3, lambda key, _start, data: data[:-1] + b"!" if key.endswith("one.safetensors") else data)
    with pytest.raises(MissingWeights, match=r"'pushed/one.safetensors' is corrupt, twice: expected sha256 \w{64}, found"):
        fetch_folder(URI, storage=storage)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is no folder"),
        ({".hidden": b""}, "holds no files"),
        ({"a.txt": b""}, r"no config.json or adapter_config.json.*--any"),
    ],
    ids=["missing", "empty", "no-model"],
)
def test_a_folder_that_is_no_model_is_not_pushed(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        manta("push", write(tmp_path / "model", files), URI)


def test_a_folder_that_cannot_be_read_ends_the_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, scan = write(tmp_path / "model"), os.scandir

    def refused_below(path: str) -> Any:
        if os.fspath(path).endswith("sub"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr("os.scandir", refused_below)
    with pytest.raises(MissingWeights, match=r"model/sub cannot be read: Permission denied"):
        local_files(folder)


def test_a_folder_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"xxx cannot be read: File name too long"):
        local_files(tmp_path / ("x" * 300))


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.bin")
    with pytest.raises(CommandError, match=r"model/.udcff.bin' is not UTF-8, and object keys are; rename it"):
        manta("push", write(tmp_path / "model", {**MODEL, name: b""}), URI)
    with pytest.raises(MissingWeights, match=r"is not UTF-8"):
        parse_location(f"{URI}/{name}")


def test_a_folder_in_the_home_of_nobody_is_refused(s3: Any) -> None:
    for command in (["push", "~nosuch/x", URI], ["pull", put(s3, "tiny"), "~nosuch/x"]):
        with pytest.raises(CommandError, match="folder: '~nosuch/x' is in the home of nobody here"):
            manta(*command)


def test_any_folder_is_pushed_when_that_is_meant(s3: Any, tmp_path: Path) -> None:
    assert "1 files sent" in manta("push", write(tmp_path / "docs", {"a.txt": b"a"}), URI, "--any").stdout


def test_a_bucket_that_is_not_there_is_named(s3: Any, tmp_path: Path) -> None:
    for command in (["push", write(tmp_path / "model"), "s3://nobody/x"], ["pull", "s3://nobody/x"], ["ls", "s3://nobody"]):
        with pytest.raises(CommandError, match=r"s3://nobody.* cannot be listed: .*check the bucket's name"):
            manta(*command)


def test_models_and_adapters_below_a_prefix_are_listed(s3: Any, tmp_path: Path) -> None:
    manta("push", write(tmp_path / "model"), f"s3://{BUCKET}/llm/chat")
    put(s3, "llm/lora/sql", {"adapter_config.json": b"{}", "adapter.safetensors": b"x" * 100})
    put(s3, "other", {"readme.txt": b""})
    listed = json.loads(manta("ls", f"s3://{BUCKET}", "--json").stdout)
    told = [(each["name"], each["uri"], each["files"], each["total_bytes"], each["kind"]) for each in listed]
    assert told == [
        ("llm/chat", f"s3://{BUCKET}/llm/chat", 3, 2 * BLOCK + 2, "model"),
        ("llm/lora/sql", f"s3://{BUCKET}/llm/lora/sql", 2, 102, "adapter"),
    ]
    table = manta("ls", f"s3://{BUCKET}/llm/chat").stdout
    assert all(word in table for word in ("chat", "131.1 kB", "model"))
    assert manta("ls", f"s3://{BUCKET}/other").stdout == f"no model and no adapter below s3://{BUCKET}/other\n"


def test_the_cache_is_listed_with_what_is_in_use(s3: Any, storage: Storage) -> None:
    assert manta("ls").stdout == f"the cache {storage.cache.root} is empty\n"
    fetch_folder(put(s3, "idle", {"one": b"1"}), storage=storage).close()
    with fetch_folder(put(s3, "busy", {"one": b"two"}), storage=storage):
        listed = json.loads(manta("ls", "--json").stdout)
        table = manta("ls").stdout
    told = [(each["source"], each["total_bytes"], each["in_use"], each["is_partial"]) for each in listed]
    assert told == [(f"s3://{BUCKET}/busy", 3, True, False), (f"s3://{BUCKET}/idle", 1, False, False)]
    assert all(word in table for word in (f"s3://{BUCKET}/busy", "3 B", "yes", "whole"))


def test_a_bad_limit_of_the_cache_is_said_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANTA_CACHE_GIB", "plenty")
    with pytest.raises(CommandError, match="MANTA_CACHE_GIB must be a number of GiB above 0"):
        manta("ls")


def test_a_file_that_changes_while_it_is_pushed_is_named(s3: Any, tmp_path: Path) -> None:
    files = local_files(write(tmp_path / "model"))
    sums = hash_files(files)
    write(tmp_path / "model", {"one.safetensors": b"longer" * BLOCK})
    push = Push(s3, parse_location(URI), tuning=TUNING)
    with pytest.raises(MissingWeights, match=r"model/one.safetensors changed while it was pushed; push the folder again"):
        push.run(files, sums)
    assert not parse_manifest(body_of(s3, MANIFEST), uri=URI).is_whole


def test_a_file_that_cannot_be_read_is_named(s3: Any, tmp_path: Path) -> None:
    files = local_files(write(tmp_path / "model"))
    sums = hash_files(files)
    (tmp_path / "model" / "one.safetensors").unlink()
    with pytest.raises(MissingWeights, match=r"one.safetensors cannot be read: No such file"):
        hash_files(files)
    with pytest.raises(MissingWeights, match=r"one.safetensors cannot be read: No such file"):
        Push(s3, parse_location(URI), tuning=TUNING).run(files, sums)


def test_a_push_notes_now_and_then_what_it_has_sent(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "NOTE_BYTES", BLOCK)
    noted: list[list[str]] = []

    def look(params: dict[str, Any], **_: Any) -> None:
        if params["Key"].endswith(MANIFEST):
            noted.append(sorted(parse_manifest(params["Body"], uri=URI).files))

    s3.meta.events.register("provide-client-params.s3.PutObject", look)
    files = local_files(write(tmp_path / "model"))
    Push(s3, parse_location(URI), tuning=TUNING).run(files, hash_files(files))
    s3.meta.events.unregister("provide-client-params.s3.PutObject", look)
    one, two = "one.safetensors", "sub/two.safetensors"
    assert noted == [[], [one], [one, two], ["config.json", one, two]]


def test_a_manifest_that_cannot_be_read_is_replaced(s3: Any, tmp_path: Path) -> None:
    put(s3, "pushed", {MANIFEST: b"nonsense"})
    assert "3 files sent" in manta("push", write(tmp_path / "model"), URI).stdout
    assert parse_manifest(body_of(s3, MANIFEST), uri=URI).is_whole
