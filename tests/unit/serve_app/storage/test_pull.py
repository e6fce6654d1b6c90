"""Pulls into a folder that is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serve_app.errors import MissingWeights
from serve_app.storage.folders import Storage, pull
from serve_app.storage.location import parse_location
from serve_app.storage.progress import Progress
from serve_app.storage.remote import list_folder
from tests.unit.serve_app.storage.objects import FILES, TOTAL, Gets, contents, put


def break_off(progress: Progress) -> None:
    if progress.done_bytes > TOTAL // 2:
        raise RuntimeError("enough")


def test_a_pull_into_an_empty_folder_stays_inside_it(s3: Any, storage: Storage, tmp_path: Path) -> None:
    remote = list_folder(s3, parse_location(put(s3, "tiny")))
    (folder := tmp_path / "mount").mkdir()
    (link := tmp_path / "link").symlink_to(folder)
    with pytest.raises(RuntimeError):
        pull(remote, storage, folder=link, on_progress=break_off)
    partial = {path.name for path in folder.iterdir()}
    assert all(name.startswith(".manta.") for name in partial)
    assert {path.name for path in tmp_path.iterdir()} == {"mount", "link"}
    gets = Gets(s3)
    assert pull(remote, storage, folder=link) == link
    assert contents(folder) == FILES
    assert gets.total_bytes < TOTAL


def test_what_makes_a_folder_a_model_is_moved_last(
    s3: Any, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = list_folder(s3, parse_location(put(s3, "tiny")))
    moved, rename = list[str](), Path.rename

    def watched(path: Path, target: Path) -> Path:
        if target.parent == tmp_path / "mount":
            moved.append(target.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    (tmp_path / "mount").mkdir()
    pull(remote, storage, folder=tmp_path / "mount")
    assert (sorted(moved[:-1]), moved[-1]) == (["model.safetensors", "sub"], "config.json")


def test_a_pull_into_what_is_in_the_way_is_refused_before_anything_is_fetched(
    s3: Any, storage: Storage, tmp_path: Path
) -> None:
    remote, gets = list_folder(s3, parse_location(put(s3, "tiny"))), Gets(s3)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for folder in (Path("/"), tmp_path / "dangling"):
        with pytest.raises(MissingWeights, match=f"{folder} (is there already|cannot be written)"):
            pull(remote, storage, folder=folder)
    assert gets.ranges == []
