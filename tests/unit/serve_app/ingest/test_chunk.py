from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import BadRequest
from serve_app.ingest.chunk import MAX_TOKEN_CHARS, MAX_WINDOW_CHARS, ChunkSizes, chunk
from serve_app.ingest.documents import Heading, ParsedDocument
from serve_app.ingest.markdown import parse_markdown
from tests.unit.serve_app.ingest.fakes import WordTokenizer

WORDS = WordTokenizer()
PIECES = ["word", "é", "日", " ", "\n", "\n\n", ". ", "# Head\n", "## Sub\n", "x" * 90, "\U0001f600"]
ODD = "aß日٣\u0301\u200b\u2028\x0b\x0c\x85\t-=`*_[](){}<>'\"\\\0\U0001f642"  # named, as all of Unicode takes seconds to load
MARKDOWN = st.lists(st.sampled_from(PIECES) | st.text(st.sampled_from(ODD), max_size=20), max_size=30).map("".join)
SIZES = st.integers(1, 12).flatmap(lambda n: st.builds(ChunkSizes, st.just(n), st.integers(0, n // 2)))


def parsed(text: str, *headings: Heading) -> ParsedDocument:
    return ParsedDocument("T", text, headings)


def texts(document: ParsedDocument, max_tokens: int = 4, overlap_tokens: int = 0) -> list[str]:
    sizes = ChunkSizes(max_tokens, overlap_tokens)
    return [piece.text for piece in chunk(document, "d", tokenizer=WORDS, sizes=sizes)]


@given(MARKDOWN, SIZES)
def test_offsets_are_exact_and_no_chunk_is_too_long(source: str, sizes: ChunkSizes) -> None:
    document = parse_markdown(source, "name")
    chunks = chunk(document, "d", tokenizer=WORDS, sizes=sizes)
    assert [piece.id for piece in chunks] == [f"d#{i}" for i in range(len(chunks))]
    for piece in chunks:
        assert piece.text == document.text[piece.start : piece.end]
        assert len(WORDS.offsets(piece.text)) <= sizes.max_tokens


@given(MARKDOWN, SIZES)
def test_every_word_outside_headings_is_in_a_chunk(source: str, sizes: ChunkSizes) -> None:
    document = parse_markdown(source, "name")
    in_chunks = {i for piece in chunk(document, "d", tokenizer=WORDS, sizes=sizes) for i in range(piece.start, piece.end)}
    in_headings = {i for heading in document.headings for i in range(heading.start, heading.end)}
    words = {i for start, end in WORDS.offsets(document.text) for i in range(start, end)}
    if words - in_headings:
        assert words - in_headings <= in_chunks


@given(MARKDOWN, SIZES)
def test_no_chunk_crosses_a_heading(source: str, sizes: ChunkSizes) -> None:
    document = parse_markdown(source, "name")
    chunks = chunk(document, "d", tokenizer=WORDS, sizes=sizes)
    if any(piece.headings for piece in chunks):
        for piece in chunks:
            assert not any(piece.start < heading.end and heading.start < piece.end for heading in document.headings)


def test_the_next_chunk_repeats_the_end_of_the_last() -> None:
    assert texts(parsed("a b c d e f g h"), max_tokens=4, overlap_tokens=1) == ["a b c d", "d e f g", "g h"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c\n\nd e f g", ["a b c", "d e f g"]),
        ("a b. c d e f", ["a b.", "c d e f"]),
        ("a b c\nd e f", ["a b c", "d e f"]),
        ("a b c d e", ["a b c d", "e"]),
    ],
    ids=["paragraph", "sentence", "line", "word"],
)
def test_a_cut_is_made_at_the_best_place_near_the_limit(text: str, expected: list[str]) -> None:
    assert texts(parsed(text)) == expected


def test_headings_are_a_path_and_not_in_the_text() -> None:
    document = parse_markdown("# T\nintro\n## A\nin a\n### B\nin b\n## C\nin c\n", "name")
    chunks = chunk(document, "d", tokenizer=WORDS, sizes=ChunkSizes())
    assert [(piece.headings, piece.text) for piece in chunks] == [
        ((), "intro"),
        (("A",), "in a"),
        (("A", "B"), "in b"),
        (("C",), "in c"),
    ]


def test_a_document_of_headings_only_can_be_found() -> None:
    assert texts(parse_markdown("# One\n## Two\n", "name"), max_tokens=9) == ["# One\n## Two"]


def test_one_endless_word_becomes_many_chunks() -> None:
    assert texts(parsed("x" * (MAX_TOKEN_CHARS * 6))) == ["x" * MAX_TOKEN_CHARS * 4, "x" * MAX_TOKEN_CHARS * 2]


def test_text_without_tokens_is_one_chunk() -> None:
    class NoTokens(WordTokenizer):
        def offsets(self, text: str) -> list[tuple[int, int]]:
            return []

    document = parsed("  …  ")
    assert [p.text for p in chunk(document, "d", tokenizer=NoTokens(), sizes=ChunkSizes())] == ["…"]


@pytest.mark.parametrize(("max_tokens", "overlap_tokens"), [(0, 0), (10, 6), (10, -1)], ids=["none", "over", "under"])
def test_sizes_that_cannot_work_are_refused(max_tokens: int, overlap_tokens: int) -> None:
    with pytest.raises(BadRequest, match="tokens must be"):
        ChunkSizes(max_tokens, overlap_tokens)


def test_a_very_long_section_is_tokenized_in_parts_that_end_between_paragraphs() -> None:
    text = "\n\n".join(" ".join(["word"] * 60) for _ in range(1_000))
    asked: list[int] = []

    class Watched(WordTokenizer):
        def offsets(self, text: str) -> list[tuple[int, int]]:
            asked.append(len(text))
            return super().offsets(text)

    chunks = chunk(parsed(text), "d", tokenizer=Watched(), sizes=ChunkSizes(100, 0))
    assert max(asked) <= MAX_WINDOW_CHARS
    assert all(piece.text == text[piece.start : piece.end] for piece in chunks)
    assert sum(piece.text.count("word") for piece in chunks) == 60_000
    assert not any(piece.text.startswith("ord") for piece in chunks)


@pytest.mark.parametrize("text", ["x" * 120_000, "y " * 60_000, "z\n" * 60_000], ids=["no-space", "spaces", "lines"])
def test_a_long_text_without_paragraphs_is_cut_all_the_same(text: str) -> None:
    chunks = chunk(parsed(text), "d", tokenizer=WordTokenizer(), sizes=ChunkSizes(100, 0))
    assert "".join("".join(piece.text.split()) for piece in chunks) == "".join(text.split())
