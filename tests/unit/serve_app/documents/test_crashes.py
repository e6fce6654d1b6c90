"""A process killed between any two writes of records, uploads or collections: what was acknowledged is there,
and what was begun is finished or never was.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import lancedb
import pytest

from serve_app.documents.contract import Upload
from serve_app.documents.errors import UnknownObject
from serve_app.documents.pages import Page
from serve_app.documents.records import NS, BatchMember, Chunking, StoreFileRecord, new_id, to_json
from serve_app.documents.registry import ORPHAN_NS
from serve_app.documents.requests import NewStore, Search
from serve_app.documents.service import DocumentService
from serve_app.documents.worker import MOST_BEGUN
from tests.unit.serve_app.documents.platform import START_NS, Clock, Crash, LetterEmbedder, MemoryBlobs, made, settled

OWLS = Upload("owls.txt", "assistants", b"Owls hunt at night in forests.")
BEES = Upload("bees.txt", "assistants", b"Bees dance.")

Act = Callable[[DocumentService, "Names"], Awaitable[None]]


class Names:
    """What was acknowledged."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.store = ""
        self.batch = ""
        self.removed: list[str] = []


async def upload(service: DocumentService, names: Names) -> None:
    for each in (OWLS, BEES):
        names.files.append((await service.create_file("ann", each))["id"])


async def make_store(service: DocumentService, names: Names) -> None:
    await upload(service, names)
    names.store = (await service.create_store("ann", NewStore(members=tuple(map(BatchMember, names.files)))))["id"]


async def add_batch(service: DocumentService, names: Names) -> None:
    await upload(service, names)
    names.store = (await service.create_store("ann", NewStore()))["id"]
    names.batch = (await service.create_batch("ann", names.store, tuple(map(BatchMember, names.files))))["id"]


async def remove(service: DocumentService, names: Names) -> None:
    await make_store(service, names)
    await settled(service, "ann", names.store)
    await service.remove_file("ann", names.store, names.files[0])
    names.removed.append(names.files[0])


async def delete_upload(service: DocumentService, names: Names) -> None:
    await make_store(service, names)
    await settled(service, "ann", names.store)
    doomed = names.files.pop(0)
    await service.delete_file("ann", doomed)
    names.removed.append(doomed)


async def relabel(service: DocumentService, names: Names) -> None:
    await make_store(service, names)
    await settled(service, "ann", names.store)
    await service.update_file("ann", names.store, names.files[0], attributes={"year": 1})


async def add_again(service: DocumentService, names: Names) -> None:
    await make_store(service, names)
    await settled(service, "ann", names.store)
    smaller = BatchMember(names.files[0], chunking=Chunking(max_tokens=3, overlap_tokens=0))
    await service.add_file("ann", names.store, smaller)


async def crash_after(folder: Path, blobs: MemoryBlobs, act: Act) -> Names:
    """Run until the process is gone or everything is done; return what was acknowledged."""
    names = Names()
    service = made(folder, blobs=blobs)

    async def run() -> None:
        await service.open()
        await act(service, names)
        for store in (await service.stores("ann", Page()))["data"]:
            await settled(service, "ann", store["id"])

    running = asyncio.create_task(run())
    while not running.done() and not blobs.is_gone:
        await asyncio.wait([running], timeout=0.01)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError, Crash):
        await running
    await service.close()
    return names


LATER = Clock(START_NS + ORPHAN_NS + NS)  # when what has no record is an orphan for certain
ACTS = [upload, make_store, add_batch, remove, delete_upload, relabel, add_again]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_nothing_acknowledged_is_lost(tmp_path: Path, act: Act) -> None:
    for writes in itertools.count():
        folder, blobs = tmp_path / str(writes), MemoryBlobs(survives=writes)
        names = await crash_after(folder, blobs, act)
        service = made(folder, blobs=MemoryBlobs(blobs.objects), clock=LATER)
        await service.open()
        await check(service, names)
        await require_no_leftovers(service, folder, blobs)
        await service.close()
        if not blobs.is_gone:
            break
    assert writes > 2


async def require_no_leftovers(service: DocumentService, folder: Path, blobs: MemoryBlobs) -> None:
    """Fail if anything is kept that no list shows, or anything twice."""
    files = [file["id"] for file in (await service.files("ann", Page()))["data"]]
    stores = [store["id"] for store in (await service.stores("ann", Page()))["data"]]
    owners = {key.split("/")[1] for key in blobs.objects}
    assert owners == {*files, *stores}
    collections = await lancedb.connect_async(folder / "lance")
    for name in (await collections.list_tables()).tables:
        assert name in stores
        rows = await (await collections.open_table(name)).query().select(["id", "document_id", "content_hash"]).to_list()
        inside = [file["id"] for file in (await service.store_files("ann", name, Page()))["data"]]
        assert len({row["id"] for row in rows}) == len(rows)
        assert {row["document_id"] for row in rows} == set(inside)
        assert len({(row["document_id"], row["content_hash"]) for row in rows}) == len(inside)


async def check(service: DocumentService, names: Names) -> None:
    for file_id in names.files:
        assert (await service.file_content("ann", file_id)).content in (OWLS.content, BEES.content)
    for store in (await service.stores("ann", Page()))["data"]:
        done = await settled(service, "ann", store["id"])
        assert done["file_counts"]["completed"] == done["file_counts"]["total"]
        inside = {file["id"]: file for file in (await service.store_files("ann", store["id"], Page()))["data"]}
        found = {result["file_id"] for result in (await service.search("ann", store["id"], Search(("owls bees",))))["data"]}
        assert found == set(inside)  # the records and the collection agree
        if names.batch:
            assert (await service.batch("ann", names.store, names.batch))["file_counts"]["completed"] == 2
    if names.store:
        assert (await service.store("ann", names.store))["id"] == names.store
    for file_id in names.removed:
        with pytest.raises(UnknownObject):
            await service.store_file("ann", names.store, file_id)


async def delete_store(service: DocumentService, names: Names) -> None:
    await make_store(service, names)
    await settled(service, "ann", names.store)
    doomed, names.store = names.store, ""
    names.removed.append(doomed)
    await service.delete_store("ann", doomed)


async def test_a_store_whose_deletion_began_is_deleted_wherever_the_process_ends(tmp_path: Path) -> None:
    for writes in itertools.count(12):
        folder, blobs = tmp_path / str(writes), MemoryBlobs(survives=writes)
        names = await crash_after(folder, blobs, delete_store)
        service = made(folder, blobs=MemoryBlobs(blobs.objects), clock=LATER)
        await service.open()
        left = [key for key in [*blobs.objects, *names_below(folder)] for name in names.removed if name in key]
        is_whole = [store["id"] for store in (await service.stores("ann", Page()))["data"]] == names.removed
        assert left == [] or is_whole
        await service.close()
        if not blobs.is_gone:
            assert left == []
            break


def names_below(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file()]


async def test_a_file_that_ends_the_process_every_time_is_given_up(tmp_path: Path) -> None:
    names = Names()
    for start in range(MOST_BEGUN + 1):
        stuck = LetterEmbedder(gate=asyncio.Event())
        service = made(tmp_path, embedder=stuck)
        await service.open()
        if start == 0:
            names.files = [(await service.create_file("ann", OWLS))["id"]]
            names.store = (await service.create_store("ann", NewStore(members=(BatchMember(names.files[0]),))))["id"]
        if start < MOST_BEGUN:
            await stuck.reached.wait()  # the work began, and never ends
        else:
            await settled(service, "ann", names.store)
        file = await service.store_file("ann", names.store, names.files[0])
        await service.close()
    assert (file["status"], file["last_error"]["code"]) == ("failed", "server_error")
    assert "stopped 5 times" in file["last_error"]["message"]


async def test_what_a_crash_left_without_a_record_is_cleared_away(tmp_path: Path) -> None:
    store_id, file_id = new_id("vs_", 1), new_id("file-", 1)
    orphan = StoreFileRecord(store_id, file_id, 1, attempt="1", filename="a.txt")
    foreign = {"lance/docs.lance/data": b"x", "files/mine/content": b"x", "notes.json": b"{}"}
    blobs = MemoryBlobs({**foreign, f"files/{file_id}/content": b"x", orphan.key: to_json(orphan)})
    service = made(tmp_path, blobs=blobs)
    await service.open()
    await service.close()
    assert blobs.objects == foreign


async def test_an_upload_whose_record_another_cluster_is_about_to_write_is_left_alone(tmp_path: Path) -> None:
    blobs = MemoryBlobs(survives=1)
    names = await crash_after(tmp_path, blobs, upload)  # its content is written, its record is not
    assert names.files == []
    before = dict(blobs.objects)
    service = made(tmp_path, blobs=MemoryBlobs(blobs.objects))
    await service.open()
    await service.close()
    assert blobs.objects == before != {}
