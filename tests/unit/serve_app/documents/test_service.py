from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deployments.stores.lancedb import LanceStore
from serve_app.contracts import EmbeddingFingerprint
from serve_app.documents.contract import Upload
from serve_app.documents.errors import StoreExpired, TooManyFiles, UnknownObject
from serve_app.documents.pages import Page
from serve_app.documents.records import NS, BatchMember, Chunking, ExpiresAfter
from serve_app.documents.requests import NewStore, Search
from serve_app.documents.service import DocumentService
from serve_app.errors import BadRequest, BodyTooLarge, Unavailable
from serve_app.filters import Comparison
from tests.unit.serve_app.documents.platform import Clock, LetterEmbedder, MemoryBlobs, made, settled

PENGUINS = Upload("penguins.md", "assistants", b"# Penguins\n\nPenguins live in the Antarctic.\n")
OWLS = Upload("owls.txt", "assistants", b"Owls hunt at night in forests.")
BROKEN = Upload("broken.pdf", "assistants", b"%PDF-1.7 not really")


@contextlib.asynccontextmanager
async def opened(folder: Path, **more: Any) -> AsyncIterator[DocumentService]:
    service = made(folder, **more)
    await service.open()
    try:
        yield service
    finally:
        await service.close()


async def uploaded(service: DocumentService, *uploads: Upload, tenant: str = "ann") -> list[str]:
    return [(await service.create_file(tenant, upload))["id"] for upload in uploads]


async def filled(service: DocumentService, *uploads: Upload, tenant: str = "ann") -> tuple[str, list[str]]:
    file_ids = await uploaded(service, *uploads, tenant=tenant)
    store = await service.create_store(tenant, NewStore(name="birds", members=tuple(map(BatchMember, file_ids))))
    await settled(service, tenant, store["id"])
    return store["id"], file_ids


def files_below(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file()]


async def found(service: DocumentService, store_id: str, *queries: str, **more: Any) -> list[str]:
    page = await service.search("ann", store_id, Search(queries, **more))
    return [result["filename"] for result in page["data"]]


async def test_files_become_searchable_and_count(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        store_id, file_ids = await filled(service, PENGUINS, OWLS)
        store = await service.store("ann", store_id)
        assert (store["status"], store["file_counts"]["completed"], store["usage_bytes"] > 0) == ("completed", 2, True)
        page = await service.search("ann", store_id, Search(("where do penguins live",), max_results=1))
        [result] = page["data"]
        assert (result["file_id"], result["filename"]) == (file_ids[0], "penguins.md")
        assert result["content"] == [{"type": "text", "text": "Penguins live in the Antarctic."}]
        assert 0 < result["score"] <= 1


async def test_search_results_come_once_from_several_queries_and_over_the_threshold(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        store_id, _ = await filled(service, PENGUINS, OWLS)
        assert sorted(await found(service, store_id, "penguins", "owls")) == ["owls.txt", "penguins.md"]
        assert await found(service, store_id, "penguins antarctic", score_threshold=0.99) == ["penguins.md"]


async def test_a_vector_store_without_files_finds_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        store = await service.create_store("ann", NewStore())
        assert await found(service, store["id"], "anything") == []
        assert store["status"] == "completed"


@pytest.mark.parametrize(
    ("upload", "code"),
    [
        pytest.param(BROKEN, "invalid_file", id="damaged"),
        pytest.param(Upload("a.exe", "assistants", b"x"), "unsupported_file", id="unknown-suffix"),
        pytest.param(Upload("none", "assistants", b"x"), "unsupported_file", id="no-suffix"),
        pytest.param(Upload("empty.txt", "assistants", b" "), "invalid_file", id="empty"),
    ],
)
async def test_a_file_that_cannot_be_read_fails_alone(tmp_path: Path, upload: Upload, code: str) -> None:
    async with opened(tmp_path) as service:
        store_id, file_ids = await filled(service, upload, OWLS)
        file = await service.store_file("ann", store_id, file_ids[0])
        assert (file["status"], file["last_error"]["code"]) == ("failed", code)
        assert (await service.store("ann", store_id))["file_counts"]["completed"] == 1


async def test_an_unknown_failure_is_told_without_detail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path, embedder=LetterEmbedder(errors=[RuntimeError("secret /path")])) as service:
        store_id, [file_id] = await filled(service, OWLS)
        error = (await service.store_file("ann", store_id, file_id))["last_error"]
        assert error == {"code": "server_error", "message": "internal error; add the file again"}


async def test_an_embedder_that_starts_is_waited_for(tmp_path: Path) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    away = LetterEmbedder(errors=[Unavailable("starting")] * 3)
    async with opened(tmp_path, embedder=away, sleep=sleep) as service:
        store_id, _ = await filled(service, OWLS)
        assert (await service.store("ann", store_id))["file_counts"]["completed"] == 1
        assert pauses == [1.0, 2.0, 4.0, 0]


async def test_code_and_data_files_are_read_as_text(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        store_id, _ = await filled(service, Upload("birds.json", "assistants", b'{"bird": "owl"}'))
        assert await found(service, store_id, "owl") == ["birds.json"]


async def test_attributes_filter_and_can_be_changed(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        [penguins, owls] = await uploaded(service, PENGUINS, OWLS)
        store_id = (await service.create_store("ann", NewStore()))["id"]
        await service.add_file("ann", store_id, BatchMember(penguins, {"year": 2024}))
        await service.add_file("ann", store_id, BatchMember(owls, {"year": 1999}))
        await settled(service, "ann", store_id)
        recent = Comparison("gt", "year", 2000)
        assert await found(service, store_id, "birds", filters=recent) == ["penguins.md"]
        changed = await service.update_file("ann", store_id, owls, attributes={"year": 2025})
        assert changed["attributes"] == {"year": 2025}
        assert sorted(await found(service, store_id, "birds", filters=recent)) == ["owls.txt", "penguins.md"]
        assert await found(service, store_id, "x", filters=Comparison("eq", "title", "owls.txt")) == ["owls.txt"]
        assert await found(service, store_id, "x", filters=Comparison("eq", "document_id", penguins)) == ["penguins.md"]


async def test_attributes_that_change_while_a_file_is_embedded_are_in_force_when_it_is_done(tmp_path: Path) -> None:
    embedder = LetterEmbedder(gate=asyncio.Event())
    async with opened(tmp_path, embedder=embedder) as service:
        [owls] = await uploaded(service, OWLS)
        store_id = (await service.create_store("ann", NewStore(members=(BatchMember(owls, {"year": 1}),))))["id"]
        await embedder.reached.wait()
        await service.update_file("ann", store_id, owls, attributes={"year": 2})
        assert embedder.gate is not None
        embedder.gate.set()
        await settled(service, "ann", store_id)
        assert await found(service, store_id, "owls", filters=Comparison("eq", "year", 2)) == ["owls.txt"]


async def test_the_text_of_a_file_is_shown_as_it_was_cut(tmp_path: Path) -> None:
    async with opened(tmp_path, chunk_tokens=16, overlap_tokens=0) as service:
        store_id, [file_id] = await filled(service, Upload("long.txt", "assistants", b"One word more. " * 20))
        page = await service.store_file_content("ann", store_id, file_id)
        assert len(page["data"]) > 3
        assert " ".join(part["text"] for part in page["data"]) == "One word more. " * 19 + "One word more."


async def test_a_file_is_cut_as_asked(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        [file_id] = await uploaded(service, Upload("long.txt", "assistants", b"One word more. " * 20))
        store_id = (await service.create_store("ann", NewStore()))["id"]
        shown = await service.add_file("ann", store_id, BatchMember(file_id, chunking=Chunking(20, 0)))
        assert shown["chunking_strategy"]["static"] == {"max_chunk_size_tokens": 20, "chunk_overlap_tokens": 0}
        await settled(service, "ann", store_id)
        assert len((await service.store_file_content("ann", store_id, file_id))["data"]) == 4


async def test_chunks_longer_than_the_embedder_reads_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        [file_id] = await uploaded(service, OWLS)
        store_id = (await service.create_store("ann", NewStore()))["id"]
        with pytest.raises(BadRequest, match=r"max_chunk_size_tokens is 800 tokens; the embedder reads at most 254"):
            await service.add_file("ann", store_id, BatchMember(file_id, chunking=Chunking(800, 400)))


async def test_a_configuration_with_chunks_longer_than_the_embedder_reads_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="chunk_tokens is 800 tokens; the embedder reads at most 254"):
        made(tmp_path, chunk_tokens=800)


async def test_a_removed_file_is_not_found_and_its_upload_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        store_id, [_, owls] = await filled(service, PENGUINS, OWLS)
        deleted = await service.remove_file("ann", store_id, owls)
        assert deleted == {"id": owls, "object": "vector_store.file.deleted", "deleted": True}
        assert await found(service, store_id, "owls") == ["penguins.md"]
        assert (await service.file_content("ann", owls)).content == OWLS.content


async def test_a_deleted_upload_leaves_every_vector_store(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        store_id, [_, owls] = await filled(service, PENGUINS, OWLS)
        await service.delete_file("ann", owls)
        assert await found(service, store_id, "owls") == ["penguins.md"]
        with pytest.raises(UnknownObject):
            await service.file("ann", owls)
        assert [name for name in files_below(tmp_path / "documents") if owls in name] == []


async def test_a_deleted_vector_store_leaves_nothing_but_uploads(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        store_id, [penguins] = await filled(service, PENGUINS)
        assert await service.delete_store("ann", store_id) == {
            "id": store_id,
            "object": "vector_store.deleted",
            "deleted": True,
        }
        assert [name for name in files_below(tmp_path) if store_id in name] == []
        assert (await service.file("ann", penguins))["filename"] == "penguins.md"


async def test_a_file_added_again_is_cut_anew_and_one_that_now_fails_is_not_found(tmp_path: Path) -> None:
    embedder = LetterEmbedder()
    async with opened(tmp_path, embedder=embedder) as service:
        store_id, [owls] = await filled(service, OWLS)
        await service.add_file("ann", store_id, BatchMember(owls, {"year": 1}))
        await settled(service, "ann", store_id)
        assert await found(service, store_id, "owls", filters=Comparison("eq", "year", 1)) == ["owls.txt"]
        embedder.errors.append(BadRequest("not this"))
        await service.add_file("ann", store_id, BatchMember(owls))
        assert (await settled(service, "ann", store_id))["file_counts"]["failed"] == 1
        assert await found(service, store_id, "owls") == []


async def test_a_batch_counts_its_own_files(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        store_id, _ = await filled(service, PENGUINS)
        [owls, broken] = await uploaded(service, OWLS, BROKEN)
        batch = await service.create_batch("ann", store_id, (BatchMember(owls), BatchMember(broken)))
        assert (batch["status"], batch["file_counts"]["in_progress"]) == ("in_progress", 2)
        await settled(service, "ann", store_id)
        done = await service.batch("ann", store_id, batch["id"])
        assert (done["status"], done["file_counts"]["completed"], done["file_counts"]["failed"]) == ("completed", 1, 1)
        listed = await service.batch_files("ann", store_id, batch["id"], page=Page(order="asc"))
        assert [file["id"] for file in listed["data"]] == [owls, broken]


async def test_a_cancelled_batch_adds_nothing_more(tmp_path: Path) -> None:
    embedder = LetterEmbedder(gate=asyncio.Event())
    async with opened(tmp_path, embedder=embedder) as service:
        store_id = (await service.create_store("ann", NewStore()))["id"]
        members = tuple(map(BatchMember, await uploaded(service, PENGUINS, OWLS)))
        batch = await service.create_batch("ann", store_id, members)
        await embedder.reached.wait()
        cancelled = await service.cancel_batch("ann", store_id, batch["id"])
        assert (cancelled["status"], cancelled["file_counts"]["cancelled"]) == ("cancelled", 2)
        assert embedder.gate is not None
        embedder.gate.set()
        later = await uploaded(service, Upload("bees.txt", "assistants", b"Bees dance."))
        await service.add_file("ann", store_id, BatchMember(later[0]))  # comes after them in line
        await settled(service, "ann", store_id)
        assert await found(service, store_id, "owls") == ["bees.txt"]
        assert (await service.cancel_batch("ann", store_id, batch["id"])) == cancelled


async def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path, max_files_per_store=1) as service:
        store_id, [penguins] = await filled(service, PENGUINS)
        [owls] = await uploaded(service, OWLS)
        await service.add_file("ann", store_id, BatchMember(penguins))
        with pytest.raises(TooManyFiles, match="at most 1 files"):
            await service.add_file("ann", store_id, BatchMember(owls))
        with pytest.raises(TooManyFiles):
            await service.create_batch("ann", store_id, (BatchMember(owls),))
        with pytest.raises(TooManyFiles):
            await service.create_store("ann", NewStore(members=(BatchMember(owls), BatchMember(penguins))))


async def test_the_size_of_an_upload_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path, max_file_bytes=1024) as service:
        with pytest.raises(BodyTooLarge):
            await service.create_file("ann", Upload("a.txt", "assistants", b"x" * 1025))


async def test_nobody_reaches_what_belongs_to_another_tenant(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        store_id, [file_id] = await filled(service, OWLS)
        batch = await service.create_batch("ann", store_id, (BatchMember(file_id),))
        own_store = (await service.create_store("bob", NewStore()))["id"]
        attempts = [
            service.file("bob", file_id),
            service.file_content("bob", file_id),
            service.delete_file("bob", file_id),
            service.store("bob", store_id),
            service.update_store("bob", store_id, {"name": "mine"}),
            service.delete_store("bob", store_id),
            service.search("bob", store_id, Search(("owls",))),
            service.add_file("bob", store_id, BatchMember(file_id)),
            service.add_file("bob", own_store, BatchMember(file_id)),
            service.create_store("bob", NewStore(members=(BatchMember(file_id),))),
            service.create_batch("bob", own_store, (BatchMember(file_id),)),
            service.store_file("bob", store_id, file_id),
            service.store_files("bob", store_id, Page()),
            service.update_file("bob", store_id, file_id, attributes={}),
            service.remove_file("bob", store_id, file_id),
            service.store_file_content("bob", store_id, file_id),
            service.batch("bob", store_id, batch["id"]),
            service.batch("bob", own_store, batch["id"]),
            service.cancel_batch("bob", store_id, batch["id"]),
            service.batch_files("bob", store_id, batch["id"], page=Page()),
        ]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [UnknownObject] * len(attempts)
        assert (await service.files("bob", Page()))["data"] == []
        assert [store["id"] for store in (await service.stores("bob", Page()))["data"]] == [own_store]
        assert (await service.owns("ann", store_id), await service.owns("bob", store_id)) == (True, False)


async def test_a_vector_store_that_nobody_uses_expires(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock=clock) as service:
        [owls] = await uploaded(service, OWLS)
        new = NewStore(expires_after=ExpiresAfter(1), members=(BatchMember(owls),))
        store_id = (await service.create_store("ann", new))["id"]
        await settled(service, "ann", store_id)
        clock.now_ns += 80_000 * NS
        assert await found(service, store_id, "owls") == ["owls.txt"]  # this is use
        clock.now_ns += 80_000 * NS
        assert (await service.store("ann", store_id))["status"] == "completed"
        clock.now_ns += 10_000 * NS
        assert (await service.store("ann", store_id))["status"] == "expired"
        with pytest.raises(StoreExpired):
            await found(service, store_id, "owls")
        assert not await service.owns("ann", store_id)
    async with opened(tmp_path, clock=clock) as service:  # what has expired is cleared away
        assert (await service.store("ann", store_id))["file_counts"]["total"] == 0
        assert [name for name in files_below(tmp_path / "lance") if store_id in name] == []


async def test_an_upload_expires(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock=clock) as service:
        [file_id] = await uploaded(service, Upload("a.txt", "assistants", b"x", expires_after_s=3600))
        clock.now_ns += 3601 * NS
        with pytest.raises(UnknownObject):
            await service.file("ann", file_id)


async def test_lists_come_in_pages_even_when_what_they_start_after_is_gone(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        ids = await uploaded(service, *[Upload(f"{i}.txt", "assistants", b"x") for i in range(5)])
        first = await service.files("ann", Page(limit=2))
        assert ([file["id"] for file in first["data"]], first["has_more"]) == (ids[:2:-1], True)
        await service.delete_file("ann", first["last_id"])
        second = await service.files("ann", Page(limit=2, after=first["last_id"]))
        assert [file["id"] for file in second["data"]] == [ids[2], ids[1]]
        back = await service.files("ann", Page(limit=1, before=ids[1]))
        assert [file["id"] for file in back["data"]] == [ids[2]]
        oldest = await service.files("ann", Page(limit=9, order="asc", after=ids[1]), "assistants")
        assert ([file["id"] for file in oldest["data"]], oldest["has_more"]) == ([ids[2], ids[4]], False)
        assert (await service.files("ann", Page(), "vision"))["data"] == []


class FlakyBlobs(MemoryBlobs):
    """Refuses the next ``refusals`` writes."""

    refusals = 0

    async def put(self, key: str, data: bytes) -> None:
        if self.refusals:
            self.refusals -= 1
            raise Unavailable("the object store is away")
        await super().put(key, data)


async def test_a_file_is_tried_again_when_records_could_not_be_written(tmp_path: Path) -> None:
    blobs = FlakyBlobs()
    embedder = LetterEmbedder(gate=asyncio.Event())
    async with opened(tmp_path, blobs=blobs, embedder=embedder) as service:
        [owls] = await uploaded(service, OWLS)
        store_id = (await service.create_store("ann", NewStore(members=(BatchMember(owls),))))["id"]
        await embedder.reached.wait()
        blobs.refusals = 1  # the write that says "completed"
        assert embedder.gate is not None
        embedder.gate.set()
        assert (await settled(service, "ann", store_id))["file_counts"]["completed"] == 1
        assert blobs.refusals == 0


async def test_a_store_of_another_embedder_says_so_without_a_command_for_operators(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        store_id = (await service.create_store("ann", NewStore()))["id"]
        other = EmbeddingFingerprint("org/other", 3, normalized=True)
        await LanceStore(str(tmp_path / "lance")).create(store_id, other)
        [owls] = await uploaded(service, OWLS)
        await service.add_file("ann", store_id, BatchMember(owls))
        await settled(service, "ann", store_id)
        error = (await service.store_file("ann", store_id, owls))["last_error"]
        assert error == {
            "code": "server_error",
            "message": "this vector store was filled by another embedder; create another one",
        }
