from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.documents.pages import Page, cut, parse_page
from serve_app.documents.queue import FairQueue
from serve_app.documents.records import (
    BatchMember,
    BatchRecord,
    Chunking,
    ExpiresAfter,
    FileRecord,
    FileStatus,
    Record,
    StoreFileRecord,
    StoreRecord,
    from_json,
    id_order,
    new_id,
    to_json,
)
from serve_app.errors import BadRequest

IDS = st.text("abcdef0123456789-_", min_size=1, max_size=20)
TIMES = st.integers(0, 2**62)
TEXTS = st.text(max_size=20)
ATTRIBUTES = st.dictionaries(
    TEXTS, TEXTS | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False), max_size=4
)
CHUNKINGS = st.none() | st.builds(Chunking, st.integers(1, 99), st.integers(0, 99))
MEMBERS = st.lists(st.builds(BatchMember, IDS, ATTRIBUTES, CHUNKINGS), max_size=4).map(tuple)
RECORDS = st.one_of(
    st.builds(FileRecord, IDS, IDS, TIMES, filename=TEXTS, purpose=TEXTS, size_bytes=TIMES, expires_ns=st.none() | TIMES),
    st.builds(
        StoreRecord,
        IDS,
        IDS,
        TIMES,
        last_active_ns=TIMES,
        description=st.none() | TEXTS,
        metadata=st.dictionaries(TEXTS, TEXTS, max_size=4),
        expires_after=st.none() | st.builds(ExpiresAfter, st.integers(1, 365)),
        deleting=st.booleans(),
    ),
    st.builds(
        StoreFileRecord,
        IDS,
        IDS,
        TIMES,
        attempt=IDS,
        filename=TEXTS,
        attributes=ATTRIBUTES,
        chunking=CHUNKINGS,
        status=st.sampled_from(FileStatus),
        error_code=st.sampled_from([None, "invalid_file"]),
        error_message=TEXTS,
    ),
    st.builds(BatchRecord, IDS, IDS, TIMES, members=MEMBERS, is_added=st.booleans(), cancelled=st.booleans()),
)


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    assert from_json(to_json(record)) == record


@pytest.mark.parametrize(("prefix", "length"), [("file-", 29), ("vs_", 35), ("vsfb_", 37)])
def test_identifiers_are_as_long_as_openais_and_sort_by_time(prefix: str, length: int) -> None:
    early, late = new_id(prefix, 1_700_000_000_000_000_000), new_id(prefix, 1_700_000_000_000_000_001)
    assert len(early) == len(late) == length
    assert id_order(early) < id_order(late)


def test_only_what_is_in_progress_is_cancelled() -> None:
    record = StoreFileRecord("vs_1", "file-1", 1, attempt="1", filename="a.txt")
    assert record.cancelled().status is FileStatus.CANCELLED
    assert record.completed(3).cancelled() == record.completed(3)
    assert record.failed("invalid_file", "no").cancelled().status is FileStatus.FAILED


STORES = [StoreRecord(new_id("vs_", ns), "ann", ns, ns) for ns in range(1, 8)]


def listed(page: Page) -> list[int]:
    return [item["ns"] for item in cut(STORES, page, lambda store: {"ns": store.created_ns})["data"]]


def test_pages_walk_through_a_list_in_both_orders() -> None:
    assert listed(Page(limit=3)) == [7, 6, 5]
    assert listed(Page(limit=3, after=STORES[4].id)) == [4, 3, 2]
    assert listed(Page(limit=3, order="asc", after=STORES[4].id)) == [6, 7]
    assert listed(Page(limit=2, before=STORES[2].id)) == [5, 4]
    assert listed(Page(limit=9, after=STORES[5].id, before=STORES[2].id)) == [5, 4]


@given(st.dictionaries(st.sampled_from(["limit", "order", "after", "before", "filter"]), st.text(max_size=40)))
def test_any_query_is_a_page_or_refused(query: dict[str, str]) -> None:
    try:
        page = parse_page(query)
    except BadRequest as err:
        refused = err.param
    else:
        refused = None
        assert 1 <= page.limit <= 100
        listed(page)
    assert refused in (None, "limit", "order", "after", "before", "filter")


async def test_tenants_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for i in range(3):
        queue.put("ann", f"a{i}")
    queue.put("bob", "b0")
    assert [await queue.get() for _ in range(4)] == ["a0", "b0", "a1", "a2"]
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put("bob", "b1")
    assert await waiting == "b1"
