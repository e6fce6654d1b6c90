from __future__ import annotations

import asyncio
from pathlib import Path

from deployments.state import BlobState
from serve_app.documents.blobs import FolderBlobs


async def test_what_was_never_kept_is_none(tmp_path: Path) -> None:
    assert await BlobState(FolderBlobs(tmp_path)).get("progress") is None


async def test_the_last_value_of_each_key_is_kept(tmp_path: Path) -> None:
    state = BlobState(FolderBlobs(tmp_path))
    for key, data in (("progress", b"1"), ("evidence", b"e"), ("progress", b"2")):
        await state.put(key, data)
    assert (await state.get("progress"), await state.get("evidence")) == (b"2", b"e")


async def test_another_process_finds_what_one_kept(tmp_path: Path) -> None:
    await BlobState(FolderBlobs(tmp_path)).put("progress", b"1")
    assert await BlobState(FolderBlobs(tmp_path)).get("progress") == b"1"


def test_values_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    asyncio.run(BlobState(FolderBlobs(tmp_path)).put("progress", b"1"))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "rollouts/progress.json"
    ]
