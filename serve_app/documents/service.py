"""DocumentService: uploads and vector stores of all tenants, in one process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set
from dataclasses import replace

from serve_app.config import VectorStoresConfig
from serve_app.contracts import Retriever
from serve_app.documents import wire
from serve_app.documents.contract import FileContent, Json, Upload
from serve_app.documents.errors import StoreExpired, TooManyFiles
from serve_app.documents.ingestor import Ingestor
from serve_app.documents.pages import Page, cut
from serve_app.documents.records import (
    NS,
    BatchMember,
    BatchRecord,
    FileRecord,
    StoreFileRecord,
    StoreRecord,
    new_id,
)
from serve_app.documents.recovery import recover, sweep
from serve_app.documents.requests import NewStore, Search, StoreChanges
from serve_app.documents.searching import search_store
from serve_app.documents.steps import Steps
from serve_app.documents.worker import Worker
from serve_app.errors import BodyTooLarge, PlatformError
from serve_app.filters import Attributes

logger = logging.getLogger("ray.serve")

TOUCH_EVERY_NS = 600 * NS  # how exact "last active" is: each change is a write
SWEEP_EVERY_S = 600.0


class DocumentService:
    """The Documents protocol over records, collections and a worker.

    Args:
        steps: with the records and the collections.
        worker: makes files searchable.
        ingestor: says how files are cut.
        retriever: the retrieve stage.
        config: bounds and the embedder's name.
    """

    def __init__(
        self, steps: Steps, worker: Worker, *, ingestor: Ingestor, retriever: Retriever, config: VectorStoresConfig
    ) -> None:  # fmt: skip
        self._registry = steps.registry
        self._steps = steps
        self._worker = worker
        self._ingestor = ingestor
        self._retriever = retriever
        self._config = config
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the records, finish what was begun before the last stop, and begin to work."""
        await self._registry.load()
        await recover(self._steps, self._worker)
        self._worker.start(self._config.workers)
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Stop where it is; the next start goes on."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._worker.close()

    async def create_file(self, tenant: str, upload: Upload) -> Json:
        """Keep an upload. Raises BodyTooLarge."""
        if len(upload.content) > self._config.max_file_bytes:
            raise BodyTooLarge(self._config.max_file_bytes)
        created_ns = self._registry.time_ns()
        record = FileRecord(
            id=new_id("file-", created_ns),
            tenant=tenant,
            created_ns=created_ns,
            filename=upload.filename,
            purpose=upload.purpose,
            size_bytes=len(upload.content),
            expires_ns=None if upload.expires_after_s is None else created_ns + upload.expires_after_s * NS,
        )
        await self._registry.put_content(record, upload.content)
        return wire.file_object(record)

    async def file(self, tenant: str, file_id: str) -> Json:
        """Return an upload's description."""
        return wire.file_object(self._registry.file(tenant, file_id))

    async def files(self, tenant: str, page: Page, purpose: str | None = None) -> Json:
        """List uploads."""
        found = [file for file in self._registry.files(tenant) if purpose in (None, file.purpose)]
        return cut(found, page, wire.file_object)

    async def file_content(self, tenant: str, file_id: str) -> FileContent:
        """Return an upload's bytes."""
        record = self._registry.file(tenant, file_id)
        return FileContent(record.filename, await self._registry.content(record))

    async def delete_file(self, tenant: str, file_id: str) -> Json:
        """Delete an upload, and take it out of every vector store."""
        await self._steps.delete_file(self._registry.file(tenant, file_id))
        return wire.deleted(file_id, "file")

    async def create_store(self, tenant: str, new: NewStore) -> Json:
        """Make a vector store with its first files. Its record comes last: without it, all of it never was."""
        files = self._uploads(tenant, new.members)
        created_ns = self._registry.time_ns()
        record = StoreRecord(
            id=new_id("vs_", created_ns),
            tenant=tenant,
            created_ns=created_ns,
            last_active_ns=created_ns,
            name=new.name,
            description=new.description,
            metadata=new.metadata,
            expires_after=new.expires_after,
        )
        members = zip(files, new.members, strict=True)
        added = [self._steps.new_store_file(record.id, file, member) for file, member in members]
        self._check_room(record.id, len(added))
        await self._registry.put_all(added)
        await self._registry.put(record)
        self._worker.submit(tenant, added)
        return self._shown(record)

    async def store(self, tenant: str, store_id: str) -> Json:
        """Return a vector store's description."""
        return self._shown(self._registry.store(tenant, store_id))

    async def stores(self, tenant: str, page: Page) -> Json:
        """List vector stores."""
        return cut(self._registry.stores(tenant), page, self._shown)

    async def update_store(self, tenant: str, store_id: str, changes: StoreChanges) -> Json:
        """Change a vector store's name, metadata or expiry."""
        async with self._registry.turn(store_id):
            record = replace(self._active(tenant, store_id), last_active_ns=self._registry.time_ns(), **changes)
            await self._registry.put(record)
        return self._shown(record)

    async def delete_store(self, tenant: str, store_id: str) -> Json:
        """Delete a vector store; its uploads stay."""
        await self._steps.delete_store(self._registry.store(tenant, store_id))
        return wire.deleted(store_id, "vector_store.deleted")

    async def owns(self, tenant: str, store_id: str) -> bool:
        """Whether the tenant has a vector store of that identifier, to search in."""
        try:
            await self._touch(self._active(tenant, store_id))
        except PlatformError:
            return False
        return True

    async def search(self, tenant: str, store_id: str, search: Search) -> Json:
        """Return the best passages; of files that were just removed none, whatever the collection's readers still see."""
        await self._touch(self._active(tenant, store_id))
        hits = await search_store(self._retriever, store_id, embedder=self._config.embedder, search=search)
        records = {record.file_id: record for record in self._registry.store_files(store_id)}
        known = ((hit, records.get(hit.chunk.document_id)) for hit in hits)
        results = [(hit, record.filename, record.attributes) for hit, record in known if record is not None]
        return wire.search_page(search.queries, results)

    async def add_file(self, tenant: str, store_id: str, member: BatchMember) -> Json:
        """Add an upload to a vector store; one that is in it already is made searchable anew."""
        self._active(tenant, store_id)
        [file] = self._uploads(tenant, [member])
        async with self._registry.turn(store_id):
            self._active(tenant, store_id)
            self._check_room(store_id, 1, {file.id})
            record = self._steps.new_store_file(store_id, file, member)
            await self._registry.put(record)
        self._worker.submit(tenant, [record])
        return self._shown_file(record)

    async def store_file(self, tenant: str, store_id: str, file_id: str) -> Json:
        """Return where a file of a vector store stands."""
        self._registry.store(tenant, store_id)
        return self._shown_file(self._registry.store_file(store_id, file_id))

    async def store_files(self, tenant: str, store_id: str, page: Page) -> Json:
        """List the files of a vector store."""
        self._registry.store(tenant, store_id)
        found = [file for file in self._registry.store_files(store_id) if page.status in (None, file.status)]
        return cut(found, page, self._shown_file)

    async def update_file(self, tenant: str, store_id: str, file_id: str, *, attributes: Attributes) -> Json:
        """Give a file of a vector store other attributes."""
        async with self._registry.turn(store_id):
            self._active(tenant, store_id)
            record = replace(self._registry.store_file(store_id, file_id), attributes=attributes)
            await self._steps.relabel(record)
        return self._shown_file(record)

    async def remove_file(self, tenant: str, store_id: str, file_id: str) -> Json:
        """Take a file out of a vector store; the upload stays."""
        self._registry.store(tenant, store_id)
        self._registry.store_file(store_id, file_id)
        await self._steps.remove(store_id, file_id)
        return wire.deleted(file_id, "vector_store.file.deleted")

    async def store_file_content(self, tenant: str, store_id: str, file_id: str) -> Json:
        """Return the text of a file as it was cut."""
        self._registry.store(tenant, store_id)
        self._registry.store_file(store_id, file_id)
        return wire.content_page(await self._steps.store.chunks_of(store_id, file_id))

    async def create_batch(self, tenant: str, store_id: str, members: tuple[BatchMember, ...]) -> Json:
        """Add uploads to a vector store."""
        self._active(tenant, store_id)
        files = self._uploads(tenant, members)
        created_ns = self._registry.time_ns()
        batch = BatchRecord(new_id("vsfb_", created_ns), store_id, created_ns, members)
        async with self._registry.turn(store_id):
            self._active(tenant, store_id)
            self._check_room(store_id, len(members), {file.id for file in files})
            added = await self._steps.add_batch(batch, files)
        self._worker.submit(tenant, added)
        return wire.batch_object(batch, added)

    async def batch(self, tenant: str, store_id: str, batch_id: str) -> Json:
        """Return where a batch stands."""
        self._registry.store(tenant, store_id)
        return self._shown_batch(self._registry.batch(store_id, batch_id))

    async def cancel_batch(self, tenant: str, store_id: str, batch_id: str) -> Json:
        """Stop what of a batch is not done yet; one that is done stays as it is."""
        self._registry.store(tenant, store_id)
        shown = self._shown_batch(self._registry.batch(store_id, batch_id))
        if shown["status"] != "in_progress":
            return shown
        await self._steps.cancel(self._registry.batch(store_id, batch_id))
        return self._shown_batch(self._registry.batch(store_id, batch_id))

    async def batch_files(self, tenant: str, store_id: str, batch_id: str, *, page: Page) -> Json:
        """List the files of a batch."""
        self._registry.store(tenant, store_id)
        batch = self._registry.batch(store_id, batch_id)
        of_batch = (file for file in self._registry.store_files(store_id) if file.batch_id == batch.id)
        return cut([file for file in of_batch if page.status in (None, file.status)], page, self._shown_file)

    def _active(self, tenant: str, store_id: str) -> StoreRecord:
        """Return a vector store that can be used. Raises UnknownObject, StoreExpired."""
        record = self._registry.store(tenant, store_id)
        if record.is_expired(self._registry.time_ns()):
            raise StoreExpired(store_id)
        return record

    def _uploads(self, tenant: str, members: Sequence[BatchMember]) -> list[FileRecord]:
        """Return the uploads that are to be added. Raises UnknownObject; BadRequest for chunks of an impossible size."""
        for chunking in {member.chunking for member in members}:
            self._ingestor.check(chunking, param="chunking_strategy.static.max_chunk_size_tokens")
        return [self._registry.file(tenant, member.file_id) for member in members]

    def _check_room(self, store_id: str, count: int, added: Set[str] = frozenset()) -> None:
        there = {file.file_id for file in self._registry.store_files(store_id)} | added
        if max(count, len(there)) > self._config.max_files_per_store:
            raise TooManyFiles(self._config.max_files_per_store)

    async def _touch(self, record: StoreRecord) -> None:
        """Note that the vector store is in use; not each time, since that is a write."""
        if (now_ns := self._registry.time_ns()) - record.last_active_ns > TOUCH_EVERY_NS:
            async with self._registry.turn(record.id):
                current = self._registry.store(record.tenant, record.id)
                await self._registry.put(replace(current, last_active_ns=now_ns))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                await sweep(self._steps)
            except Exception:
                logger.exception("expired files and vector stores could not be deleted; this is tried again")

    def _shown(self, record: StoreRecord) -> Json:
        return wire.store_object(record, self._registry.store_files(record.id), now_ns=self._registry.time_ns())

    def _shown_file(self, record: StoreFileRecord) -> Json:
        return wire.store_file_object(record, self._ingestor.auto)

    def _shown_batch(self, record: BatchRecord) -> Json:
        return wire.batch_object(record, self._registry.store_files(record.store_id))
