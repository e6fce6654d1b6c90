"""What a crash, or the clock, has left to do. Every step may have been done in part, and is done again."""

from __future__ import annotations

from serve_app.documents.records import BatchRecord, FileStatus
from serve_app.documents.steps import Steps
from serve_app.documents.worker import Worker


async def recover(steps: Steps, worker: Worker) -> None:
    """Finish what was begun before the last stop; before anything new is accepted."""
    await sweep(steps)
    for batch in steps.registry.everything().batches:
        if not batch.is_added:
            await _add(steps, batch)
        if batch.cancelled:
            await steps.cancel(batch)
    everything = steps.registry.everything()
    tenants = {store.id: store.tenant for store in everything.stores}
    for record in sorted(everything.store_files, key=lambda record: record.created_ns):
        if record.status is FileStatus.IN_PROGRESS:
            worker.submit(tenants[record.store_id], [record])


async def sweep(steps: Steps) -> None:
    """Delete what is marked or has expired, and finish changes that were not."""
    now_ns, everything = steps.registry.time_ns(), steps.registry.everything()
    for store in everything.stores:
        if store.deleting:
            await steps.delete_store(store)
        elif store.is_expired(now_ns) and steps.registry.store_files(store.id):
            await steps.expire(store)
    for file in (file for file in everything.files if file.is_gone(now_ns)):
        await steps.delete_file(file)
    for record in everything.store_files:
        if record.removing:
            await steps.remove(record.store_id, record.file_id)
        elif record.stale_attributes:
            await _relabel(steps, record.store_id, record.file_id)


async def _relabel(steps: Steps, store_id: str, file_id: str) -> None:
    async with steps.registry.turn(store_id):
        record = steps.registry.find_store_file(store_id, file_id)
        if record is not None and record.stale_attributes and not record.removing:
            await steps.relabel(record)


async def _add(steps: Steps, batch: BatchRecord) -> None:
    """Add what a crash kept a batch from adding; nobody was told of the batch yet, so all of it is begun again."""
    wanted = {member.file_id for member in batch.members}
    now_ns = steps.registry.time_ns()
    files = [file for file in steps.registry.everything().files if file.id in wanted and not file.is_gone(now_ns)]
    async with steps.registry.turn(batch.store_id):
        await steps.add_batch(batch, files)
