"""Documents to chunks: by tokens, under one heading each, with exact offsets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from serve_app.contracts import Chunk
from serve_app.errors import BadRequest
from serve_app.ingest.documents import ParsedDocument
from serve_app.ingest.tokens import Tokenizer

# Part of every content hash: raise it when the same document would be cut in another way.
CHUNKER_VERSION = 2
# WordPiece reads any word of over 100 characters as one unknown token. Such a token counts once per this many
# characters here, so that a page of base64 becomes many chunks and not one huge one: models count such text by few
# characters, too, and a passage must fit into their prompts.
MAX_TOKEN_CHARS = 16
# Tokenized at once: a tokenizer's answer is made of Python objects, and nothing else runs while they are made.
MAX_WINDOW_CHARS = 50_000
DEFAULT_MAX_TOKENS = 120
DEFAULT_OVERLAP_TOKENS = 20
BLANK_LINE = re.compile(r"\n[ \t]*\n")
SENTENCE_ENDS = (".", "!", "?", ":", '."', ".)")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """How long chunks are, in tokens of the embedder."""

    max_tokens: int = DEFAULT_MAX_TOKENS
    overlap_tokens: int = DEFAULT_OVERLAP_TOKENS  # at most this many tokens of a chunk are repeated at the start of the next

    def __post_init__(self) -> None:
        """Raise BadRequest for sizes that cannot work."""
        if self.max_tokens < 1:
            raise BadRequest(f"max_tokens must be at least 1, got {self.max_tokens}", param="max_tokens")
        if not 0 <= self.overlap_tokens <= self.max_tokens // 2:
            raise BadRequest(
                f"overlap_tokens must be between 0 and half of max_tokens ({self.max_tokens // 2}), got {self.overlap_tokens}",
                param="overlap_tokens",
            )


class Break(IntEnum):
    """How good a place between two tokens is to cut at."""

    IN_WORD = 0
    WORD = 1
    LINE = 2
    SENTENCE = 3
    PARAGRAPH = 4


@dataclass(frozen=True, slots=True)
class _Section:
    headings: tuple[str, ...]
    start: int
    end: int


def chunk(document: ParsedDocument, document_id: str, *, tokenizer: Tokenizer, sizes: ChunkSizes) -> list[Chunk]:
    """Return the chunks of a document, in order; ``chunk.text == document.text[chunk.start:chunk.end]``.

    A chunk has at most ``max_tokens`` tokens and never crosses a heading. The heading lines themselves are not in the
    text: they are in ``headings``. A document of nothing but headings becomes one section, so that it can be found.
    """
    sections = [section for section in _sections(document) if document.text[section.start : section.end].strip()]
    spans = [
        (section.headings, span)
        for section in sections or [_Section((), 0, len(document.text))]
        for window in _windows(document.text, section)
        for span in _cut(document.text, window, tokenizer=tokenizer, sizes=sizes)
    ]
    return [
        Chunk(
            id=f"{document_id}#{ordinal}",
            document_id=document_id,
            ordinal=ordinal,
            title=document.title,
            headings=headings,
            text=document.text[start:end],
            start=start,
            end=end,
        )
        for ordinal, (headings, (start, end)) in enumerate(spans)
    ]


def _sections(document: ParsedDocument) -> Iterator[_Section]:
    """Yield the text between headings with the headings above it; a title that repeats the document's is left out."""
    path: list[tuple[int, str]] = []
    start = 0
    for heading in document.headings:
        yield _Section(tuple(title for _, title in path if title != document.title), start, heading.start)
        path = [(level, title) for level, title in path if level < heading.level] + [(heading.level, heading.title)]
        start = heading.end
    yield _Section(tuple(title for _, title in path if title != document.title), start, len(document.text))


def _windows(text: str, section: _Section) -> Iterator[_Section]:
    """Yield a section, or the parts of a very long one: cut at a blank line, else a line, else a space, else anywhere."""
    start = section.start
    while section.end - start > MAX_WINDOW_CHARS:
        end = _window_end(text, start)
        if text[start:end].strip():
            yield _Section(section.headings, start, end)
        start = end
    if start == section.start or text[start : section.end].strip():
        yield _Section(section.headings, start, section.end)


def _window_end(text: str, start: int) -> int:
    earliest, latest = start + MAX_WINDOW_CHARS // 2, start + MAX_WINDOW_CHARS
    found = (text.rfind(mark, earliest, latest) + len(mark) for mark in ("\n\n", "\n", " "))
    return next((end for end in found if end > earliest), latest)


def _cut(text: str, section: _Section, *, tokenizer: Tokenizer, sizes: ChunkSizes) -> Iterator[Span]:
    body = text[section.start : section.end]
    tokens = [piece for span in tokenizer.offsets(body) for piece in _pieces(span)]
    if not tokens:  # nothing the embedder has a token for, such as a line of emoji
        yield section.start + len(body) - len(body.lstrip()), section.start + len(body.rstrip())
        return
    gaps = (_break(body, before[1], after[0]) for before, after in pairwise(tokens))
    breaks = [Break.PARAGRAPH, *gaps]  # breaks[i] is before tokens[i]
    first = 0
    while first < len(tokens):
        last = _end(breaks, first, max_tokens=sizes.max_tokens)
        yield section.start + tokens[first][0], section.start + tokens[last - 1][1]
        first = len(tokens) if last == len(tokens) else _restart(breaks, first, last, overlap_tokens=sizes.overlap_tokens)


def _pieces(span: Span) -> Iterator[Span]:
    start, end = span
    for piece in range(start, end, MAX_TOKEN_CHARS):
        yield piece, min(end, piece + MAX_TOKEN_CHARS)


def _break(body: str, end: int, start: int) -> Break:
    gap = body[end:start]
    if not gap:
        return Break.IN_WORD
    if BLANK_LINE.search(gap):
        return Break.PARAGRAPH
    if body[max(0, end - 2) : end].endswith(SENTENCE_ENDS):
        return Break.SENTENCE
    return Break.LINE if "\n" in gap else Break.WORD


def _end(breaks: Sequence[Break], first: int, *, max_tokens: int) -> int:
    """Return where the chunk ends: the best break in its second half, and of equal ones the last."""
    limit = first + max_tokens
    if limit >= len(breaks):
        return len(breaks)
    candidates = range(first + max(1, max_tokens // 2), limit + 1)
    return max(candidates, key=lambda i: (breaks[i], i))


def _restart(breaks: Sequence[Break], first: int, last: int, *, overlap_tokens: int) -> int:
    """Return where the next chunk starts: at the best break within the overlap, and of equal ones the first."""
    candidates = range(max(first + 1, last - overlap_tokens), last)
    usable = [i for i in candidates if breaks[i] > Break.IN_WORD]
    return max(usable, key=lambda i: (breaks[i], -i), default=last)
