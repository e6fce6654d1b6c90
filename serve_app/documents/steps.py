"""Steps: changes of several parts that a crash may interrupt. Each first writes down what is meant, and can be done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from serve_app.contracts import VectorStore
from serve_app.documents.records import BatchMember, BatchRecord, FileRecord, FileStatus, StoreFileRecord, StoreRecord
from serve_app.documents.registry import Registry


class Steps:
    """Keeps records, uploads and collections in line.

    Args:
        registry: the records.
        store: the collections; a vector store's has its identifier as name.
    """

    def __init__(self, registry: Registry, store: VectorStore) -> None:
        self.registry = registry
        self.store = store

    async def delete_file(self, record: FileRecord) -> None:
        """Delete an upload, and take it out of every vector store."""
        await self.registry.put(replace(record, deleting=True))
        for store_id in self.registry.stores_with(record.id):
            await self.remove(store_id, record.id)
        await self.registry.forget_file(record)

    async def remove(self, store_id: str, file_id: str) -> None:
        """Take a file out of a vector store."""
        async with self.registry.turn(store_id):
            if (record := self.registry.find_store_file(store_id, file_id)) is None:
                return
            await self.registry.put(replace(record, removing=True))
            await self.store.delete_documents(store_id, [file_id])
            await self.registry.forget_store_file(record)

    async def delete_store(self, record: StoreRecord) -> None:
        """Delete a vector store; its uploads stay."""
        async with self.registry.turn(record.id):
            await self.registry.put(replace(record, deleting=True))
            await self.store.drop(record.id)
            await self.registry.forget_store(record)

    async def expire(self, record: StoreRecord) -> None:
        """Empty a vector store that nobody used; its record stays and says so."""
        async with self.registry.turn(record.id):
            await self.store.drop(record.id)
            for file in self.registry.store_files(record.id):
                await self.registry.forget_store_file(file)

    async def cancel(self, record: BatchRecord) -> None:
        """Stop what of a batch is not done yet."""
        async with self.registry.turn(record.store_id):
            await self.registry.put(replace(record, cancelled=True))
            files = [f for f in self.registry.store_files(record.store_id) if f.batch_id == record.id]
            waiting = [f for f in files if f.status is FileStatus.IN_PROGRESS]
            # Chunks may be stored already that nobody was told of.
            await self.store.delete_documents(record.store_id, [f.file_id for f in waiting])
            await self.registry.put_all([f.cancelled() for f in waiting])

    async def add_batch(self, record: BatchRecord, files: Sequence[FileRecord]) -> list[StoreFileRecord]:
        """Add a batch's files to their vector store and return their records; its turn is the caller's."""
        await self.registry.put(record)
        by_id = {file.id: file for file in files}
        members = [(by_id[m.file_id], m) for m in record.members if m.file_id in by_id]
        records = [self.new_store_file(record.store_id, file, member, batch_id=record.id) for file, member in members]
        await self.registry.put_all(records)
        await self.registry.put(replace(record, is_added=True))
        return records

    def new_store_file(
        self, store_id: str, file: FileRecord, member: BatchMember, *, batch_id: str | None = None
    ) -> StoreFileRecord:
        """Return the record of a file that is to be added."""
        created_ns = self.registry.time_ns()
        return StoreFileRecord(
            store_id=store_id,
            file_id=file.id,
            created_ns=created_ns,
            attempt=f"{created_ns:x}",
            filename=file.filename,
            attributes=member.attributes,
            chunking=member.chunking,
            batch_id=batch_id,
        )

    async def relabel(self, record: StoreFileRecord) -> None:
        """Give a stored file's chunks the attributes of its record; its turn is the caller's."""
        if record.status is FileStatus.COMPLETED:
            await self.registry.put(replace(record, stale_attributes=True))
            await self.store.set_attributes(record.store_id, record.file_id, record.attributes)
        await self.registry.put(replace(record, stale_attributes=False))
