"""Registry: every record in memory and in the blob store, and who may see which."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from serve_app.documents.blobs import BlobStore
from serve_app.documents.errors import UnknownObject
from serve_app.documents.records import (
    NS,
    BatchRecord,
    FileRecord,
    Record,
    StoreFileRecord,
    StoreRecord,
    from_json,
    id_order,
    to_json,
)

AT_A_TIME = 16
ORPHAN_NS = 3600 * NS
# What else lies there was put there by somebody else, and is never touched.
OURS = re.compile(
    r"files/file-[0-9a-f]{24}/(record\.json|content)"
    r"|stores/vs_[0-9a-f]{32}/(store\.json|files/file-[0-9a-f]{24}\.json|batches/vsfb_[0-9a-f]{32}\.json)"
)


def wall_clock_ns() -> int:
    """Return the time in nanoseconds since 1970."""
    return time.time_ns()


@dataclass(frozen=True, slots=True)
class Everything:
    """All records."""

    files: Sequence[FileRecord]
    stores: Sequence[StoreRecord]
    store_files: Sequence[StoreFileRecord]
    batches: Sequence[BatchRecord]


class Registry:
    """Reads are answered from memory. A write is durable before it is seen, and writers of one vector store take turns.

    Args:
        blobs: where records and uploads are kept. No other process writes there.
        now_ns: wall clock.
    """

    def __init__(self, blobs: BlobStore, *, now_ns: Callable[[], int]) -> None:
        self._blobs = blobs
        self._now_ns = now_ns
        self._last_ns = 0
        self._files: dict[str, FileRecord] = {}
        self._stores: dict[str, StoreRecord] = {}
        self._store_files: dict[str, dict[str, StoreFileRecord]] = {}
        self._batches: dict[str, dict[str, BatchRecord]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def load(self) -> None:
        """Read every record; what a crash left without its record an hour ago or more is cleared away."""
        keys = [key for key in await self._blobs.keys() if OURS.fullmatch(key)]
        turns = asyncio.Semaphore(AT_A_TIME)

        async def read(key: str) -> Record:
            async with turns:
                return from_json(await self._blobs.get(key))

        for record in await asyncio.gather(*(read(key) for key in keys if key.endswith(".json"))):
            self._remember(record)
        for key in self._orphans(keys):
            await self._blobs.delete(key)
        for gone in self._store_files.keys() - self._stores.keys():
            del self._store_files[gone]
        for gone in self._batches.keys() - self._stores.keys():
            del self._batches[gone]

    def time_ns(self) -> int:
        """Return a time later than any before, so that identifiers are in order."""
        self._last_ns = max(self._now_ns(), self._last_ns + 1)
        return self._last_ns

    def turn(self, object_id: str) -> AbstractAsyncContextManager[None]:
        """Return the lock of a vector store or an upload; hold it from looking at its records to writing them."""
        return self._locks.setdefault(object_id, asyncio.Lock())

    def file(self, tenant: str, file_id: str) -> FileRecord:
        """Return an upload of the tenant. Raises UnknownObject."""
        record = self._files.get(file_id)
        if record is None or record.tenant != tenant or record.is_gone(self._now_ns()):
            raise UnknownObject("file", file_id, param="file_id")
        return record

    def files(self, tenant: str) -> list[FileRecord]:
        """Return the uploads of the tenant."""
        now_ns = self._now_ns()
        return [record for record in self._files.values() if record.tenant == tenant and not record.is_gone(now_ns)]

    def store(self, tenant: str, store_id: str) -> StoreRecord:
        """Return a vector store of the tenant. Raises UnknownObject."""
        record = self._stores.get(store_id)
        if record is None or record.tenant != tenant or record.deleting:
            raise UnknownObject("vector store", store_id, param="vector_store_id")
        return record

    def stores(self, tenant: str) -> list[StoreRecord]:
        """Return the vector stores of the tenant."""
        return [record for record in self._stores.values() if record.tenant == tenant and not record.deleting]

    def store_file(self, store_id: str, file_id: str) -> StoreFileRecord:
        """Return a file of a vector store. Raises UnknownObject."""
        record = self.find_store_file(store_id, file_id)
        if record is None or record.removing:
            raise UnknownObject("vector store file", file_id, param="file_id")
        return record

    def find_store_file(self, store_id: str, file_id: str) -> StoreFileRecord | None:
        """Return a file of a vector store, one that is being removed too; None when there is none."""
        return self._store_files.get(store_id, {}).get(file_id)

    def store_files(self, store_id: str) -> list[StoreFileRecord]:
        """Return the files of a vector store."""
        return [record for record in self._store_files.get(store_id, {}).values() if not record.removing]

    def batch(self, store_id: str, batch_id: str) -> BatchRecord:
        """Return a batch. Raises UnknownObject."""
        record = self._batches.get(store_id, {}).get(batch_id)
        if record is None:
            raise UnknownObject("file batch", batch_id, param="batch_id")
        return record

    def stores_with(self, file_id: str) -> list[str]:
        """Return the vector stores that hold a file."""
        return [store_id for store_id, files in self._store_files.items() if file_id in files]

    async def put(self, record: Record) -> None:
        """Write a record, then show it."""
        await self._blobs.put(record.key, to_json(record))
        self._remember(record)

    async def put_all(self, records: Iterable[Record]) -> None:
        """Write records, several at a time."""
        turns = asyncio.Semaphore(AT_A_TIME)

        async def write(record: Record) -> None:
            async with turns:
                await self.put(record)

        await asyncio.gather(*map(write, records))

    async def put_content(self, record: FileRecord, content: bytes) -> None:
        """Write an upload; it is there once its record is, which comes last."""
        await self._blobs.put(record.content_key, content)
        await self.put(record)

    async def content(self, record: FileRecord) -> bytes:
        """Return an upload's bytes. Raises UnknownObject when it was deleted meanwhile."""
        try:
            return await self._blobs.get(record.content_key)
        except KeyError as err:
            raise UnknownObject("file", record.id, param="file_id") from err

    async def forget_file(self, record: FileRecord) -> None:
        """Delete an upload; its record goes last."""
        await self._blobs.delete(record.content_key)
        await self._blobs.delete(record.key)
        self._files.pop(record.id, None)
        self._locks.pop(record.id, None)

    async def forget_store_file(self, record: StoreFileRecord) -> None:
        """Delete a file's record in a vector store."""
        await self._blobs.delete(record.key)
        self._store_files.get(record.store_id, {}).pop(record.file_id, None)

    async def forget_store(self, record: StoreRecord) -> None:
        """Delete a vector store with all its records; its own goes last."""
        files, batches = self._store_files.get(record.id, {}), self._batches.get(record.id, {})
        for key in (*(file.key for file in files.values()), *(batch.key for batch in batches.values()), record.key):
            await self._blobs.delete(key)
        self._store_files.pop(record.id, None)
        self._batches.pop(record.id, None)
        self._stores.pop(record.id, None)
        self._locks.pop(record.id, None)

    def everything(self) -> Everything:
        """Return all records, of all tenants."""
        return Everything(
            files=list(self._files.values()),
            stores=list(self._stores.values()),
            store_files=[record for files in self._store_files.values() for record in files.values()],
            batches=[record for batches in self._batches.values() for record in batches.values()],
        )

    def _orphans(self, keys: Sequence[str]) -> list[str]:
        """Return the keys of contents without a record, and of parts of stores without one: nobody was told of them.

        Young ones are left: while an upgrade has two clusters the service of the other one may be about to write the record.
        """
        before_ns = self._now_ns() - ORPHAN_NS
        unknown = (key for key in keys if not self._is_known(key.split("/")))
        return [key for key in unknown if id_order(key.split("/")[1])[0] < before_ns]

    def _is_known(self, parts: Sequence[str]) -> bool:
        return parts[1] in (self._files if parts[0] == "files" else self._stores)

    def _remember(self, record: Record) -> None:
        if isinstance(record, FileRecord):
            self._files[record.id] = record
        elif isinstance(record, StoreRecord):
            self._stores[record.id] = record
        elif isinstance(record, BatchRecord):
            self._batches.setdefault(record.store_id, {})[record.id] = record
        else:
            self._store_files.setdefault(record.store_id, {})[record.file_id] = record
        self._last_ns = max(self._last_ns, record.created_ns)
