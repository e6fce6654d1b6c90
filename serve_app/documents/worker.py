"""Worker: files of vector stores become searchable, in the background and a few at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace

from serve_app.contracts import EmbeddedDocument, EmbeddingFingerprint
from serve_app.documents.errors import UnknownObject
from serve_app.documents.ingestor import Ingestor, failure, usage_bytes
from serve_app.documents.queue import FairQueue
from serve_app.documents.records import ErrorCode, FileStatus, StoreFileRecord
from serve_app.documents.steps import Steps
from serve_app.errors import EmbeddingMismatch, ErrorKind, PlatformError

logger = logging.getLogger("ray.serve")

PASSING = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.RATE_LIMITED, ErrorKind.DEADLINE})
TRIES = 20
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
MOST_BEGUN = 5
TIDY_AFTER_FILES = 64  # commits after which a collection that still fills is compacted

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Job:
    """One adding of a file to a vector store."""

    tenant: str
    store_id: str
    file_id: str
    attempt: str


class Worker:
    """Takes files in turns of their tenants.

    Args:
        steps: with the records and the collections.
        ingestor: cuts and embeds.
        visible_after_s: seconds after a commit in which another process may not see it yet; a file counts as completed
            when everybody sees it.
        sleep: replaces waiting in tests.
    """

    def __init__(
        self, steps: Steps, ingestor: Ingestor, *, visible_after_s: float = 1.0, sleep: Sleep = asyncio.sleep
    ) -> None:  # fmt: skip
        self._registry = steps.registry
        self._steps = steps
        self._store = steps.store
        self._ingestor = ingestor
        self._visible_after_s = visible_after_s
        self._sleep = sleep
        self._queue: FairQueue[Job] = FairQueue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._untidy: dict[str, int] = {}  # files stored since a collection was compacted

    def start(self, workers: int) -> None:
        """Begin to work."""
        for _ in range(workers):
            self._spawn(self._work())

    async def close(self) -> None:
        """Stop where it is; what was not done is begun again at the next start."""
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def submit(self, tenant: str, records: Iterable[StoreFileRecord]) -> None:
        """Put files in line."""
        for record in records:
            self._queue.put(tenant, Job(tenant, record.store_id, record.file_id, record.attempt))

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            await self._or_again(job, self._ingest(job))

    async def _ingest(self, job: Job) -> None:
        if (record := await self._begin(job)) is None:
            return
        try:
            document, fingerprint = await self._prepare(job, record)
            await self._commit(job, document, fingerprint)
        except UnknownObject:  # the upload was deleted meanwhile
            await self._steps.remove(job.store_id, job.file_id)
        except Exception as err:
            if not isinstance(err, PlatformError):
                logger.exception("file %s of %s failed", job.file_id, job.store_id)
            code, message = failure(_for_callers(err))
            await self._fail(job, code, message)

    async def _begin(self, job: Job) -> StoreFileRecord | None:
        """Count the beginning, and return the record unless nobody waits for it any more."""
        async with self._registry.turn(job.store_id):
            if (record := self._current(job)) is None:
                return None
            if record.begun < MOST_BEGUN:
                record = replace(record, begun=record.begun + 1)
                await self._registry.put(record)
                return record
        await self._fail(job, "server_error", f"given up: the service stopped {MOST_BEGUN} times while it read this file")
        return None

    async def _prepare(self, job: Job, record: StoreFileRecord) -> tuple[EmbeddedDocument, EmbeddingFingerprint]:
        """Return the chunks, and what their vectors are; an embedder that starts or is busy is waited for."""
        content = await self._registry.content(self._registry.file(job.tenant, job.file_id))
        pause_s = FIRST_PAUSE_S
        for _ in range(TRIES - 1):
            try:
                return await self._ingestor.prepare(record, content), await self._ingestor.fingerprint()
            except PlatformError as err:
                if err.kind not in PASSING:
                    raise
            await self._sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return await self._ingestor.prepare(record, content), await self._ingestor.fingerprint()

    async def _commit(self, job: Job, document: EmbeddedDocument, fingerprint: EmbeddingFingerprint) -> None:
        async with self._registry.turn(job.store_id):
            if (record := self._current(job)) is None:
                return
            await self._store.create(job.store_id, fingerprint)
            await self._store.replace_documents(job.store_id, [replace(document, attributes=record.attributes)])
        usage = usage_bytes(document.chunks, document.vectors)
        self._spawn(self._or_again(job, self._complete(job, usage, stored=record)))

    async def _complete(self, job: Job, usage: int, *, stored: StoreFileRecord) -> None:
        await self._sleep(self._visible_after_s)
        async with self._registry.turn(job.store_id):
            if (record := self._current(job)) is not None:
                done = record.completed(usage)
                if record.attributes == stored.attributes:
                    await self._registry.put(done)
                else:  # changed since they were stored
                    await self._steps.relabel(done)
        await self._tidy(job.store_id)

    async def _or_again(self, job: Job, work: Awaitable[None]) -> None:
        """Do the work; when records or collections cannot be written, try the file again later."""
        try:
            await work
        except Exception:
            logger.exception("file %s of %s could not be worked on", job.file_id, job.store_id)
            self._spawn(self._later(job))

    async def _later(self, job: Job) -> None:
        await self._sleep(LONGEST_PAUSE_S)
        self._queue.put(job.tenant, job)

    async def _fail(self, job: Job, code: ErrorCode, message: str) -> None:
        async with self._registry.turn(job.store_id):
            if (record := self._current(job)) is not None:
                await self._store.delete_documents(job.store_id, [job.file_id])  # of an earlier adding
                await self._registry.put(record.failed(code, message))

    async def _tidy(self, store_id: str) -> None:
        """Compact a collection and bring its indexes up to date: when it is full, and now and then before."""
        self._untidy[store_id] = self._untidy.get(store_id, 0) + 1
        is_full = all(f.status is not FileStatus.IN_PROGRESS for f in self._registry.store_files(store_id))
        if not is_full and self._untidy[store_id] < TIDY_AFTER_FILES:
            return
        del self._untidy[store_id]
        async with self._registry.turn(store_id):
            if await self._store.describe(store_id) is not None:
                await self._store.finish(store_id)

    def _current(self, job: Job) -> StoreFileRecord | None:
        """Return the record if it is still the one that this work was begun for."""
        record = self._registry.find_store_file(job.store_id, job.file_id)
        if record is None or record.attempt != job.attempt or record.removing or record.status is not FileStatus.IN_PROGRESS:
            return None
        return record

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _for_callers(error: Exception) -> Exception:
    if isinstance(error, EmbeddingMismatch):
        return PlatformError("this vector store was filled by another embedder; create another one")
    return error
