from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve_app.storage.connection import Tuning
from serve_app.storage.ranges import Span, block_count, missing_spans, range_bytes


@given(size=st.integers(0, 1000), block=st.integers(1, 64), most=st.integers(1, 200), done=st.sets(st.integers(0, 40)))
def test_spans_are_what_is_missing_and_keep_to_blocks(size: int, block: int, most: int, done: set[int]) -> None:
    spans = list(missing_spans(size, done, block_bytes=block, most_bytes=max(most, block)))
    there = {byte for b in done for byte in range(b * block, min((b + 1) * block, size))}
    assert [byte for span in spans for byte in range(span.start, span.end)] == sorted(set(range(size)) - there)
    assert all(span.start % block == 0 and (span.end % block == 0 or span.end == size) for span in spans)
    assert all(span.size <= max(most, block) + block for span in spans)


def test_a_rest_is_cut_into_equal_spans() -> None:
    spans = list(missing_spans(100, {0, 1}, block_bytes=10, most_bytes=50))
    assert spans == [Span(20, 60), Span(60, 100)]


def test_an_empty_file_has_no_blocks() -> None:
    assert (block_count(0, 10), list(missing_spans(0, set(), block_bytes=10, most_bytes=10))) == (0, [])


def test_a_range_is_a_threads_share_within_its_bounds() -> None:
    tuning = Tuning(threads=4, least_range_bytes=10, most_range_bytes=100)
    assert [range_bytes(total, tuning) for total in (4, 200, 4000)] == [10, 50, 100]
