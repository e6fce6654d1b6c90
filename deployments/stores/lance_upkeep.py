"""What a LanceDB collection needs beside its rows: the key, columns of attributes, and indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deployments.stores.lance_commits import committed
from deployments.stores.lance_filters import attribute_updates
from deployments.stores.lance_rows import KEY_COLUMN, TEXT_COLUMN, has_attributes, has_key

if TYPE_CHECKING:
    from lancedb.table import AsyncTable

# Words of questions that say nothing about the answer. The usual English list also holds `for`, `if`, `in`, `is`,
# `not`, `with`: in technical documents those are names, so they stay searchable.
STOP_WORDS = (
    "a an and are be but can could do does did how i it its me my of on or please should such tell that the their "
    "then there these they this to use used using was what when where which who why will would you your"
)


async def cover_key(table: AsyncTable) -> None:
    """Give a collection of Manta 0.1.0 its key: without one, two writers that add a document at once both add it."""

    async def cover() -> None:
        if not has_key(await table.schema()):
            await table.set_unenforced_primary_key(KEY_COLUMN)

    try:
        await committed(table, cover)
    except ValueError:  # another process was faster
        await table.checkout_latest()  # type: ignore[no-untyped-call]
        if not has_key(await table.schema()):
            raise


async def cover_attributes(table: AsyncTable) -> None:
    """Give a collection of Manta 0.1.0 the columns of attributes; its documents have none but id and title."""
    if not has_attributes(await table.schema()):
        try:
            await committed(table, lambda: table.add_columns(attribute_updates({})))
        except RuntimeError:  # another process was faster
            await table.checkout_latest()  # type: ignore[no-untyped-call]
            if not has_attributes(await table.schema()):
                raise


async def index_of(table: AsyncTable, column: str) -> Any | None:
    """Return the index of a column, or None."""
    return next((index for index in await table.list_indices() if index.columns == [column]), None)


async def cover_some_rows(table: AsyncTable) -> None:
    """Make sure that the BM25 index exists and covers at least one row.

    LanceDB scores rows that the index does not cover by the index's statistics. Without an index, or with one that
    covers nothing (made on an empty table, or all of its rows since replaced), there are none and BM25 is wrong.
    """

    async def cover() -> None:
        index = await index_of(table, TEXT_COLUMN)
        if (index is None or index.num_indexed_rows == 0) and await table.count_rows() > 0:
            from lancedb.index import FTS

            config = FTS(with_position=False, stem=True, remove_stop_words=True, custom_stop_words=STOP_WORDS.split())
            await table.create_index(TEXT_COLUMN, config=config, replace=True)

    await committed(table, cover)
