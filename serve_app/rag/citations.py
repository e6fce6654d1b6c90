"""Citations: the passages behind an answer, and of each the sentence that the answer leans on most."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.contracts import Chunk, Hit

# A sentence ends at its mark, if what follows is a gap; Chinese and Japanese leave none. So does a paragraph.
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]\u201d\u2019]*\s+|(?<=[\u3002\uff01\uff1f])|\n\s*\n")
# Scripts without gaps between words are compared character by character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
HEARD_CHARS = 20_000  # of an answer; what comes later does not change a quote


@dataclass(frozen=True, slots=True)
class _Sentence:
    start: int  # offsets into the passage
    end: int
    words: frozenset[str]


class Citations:
    """What an answer's citations are made of. Splitting passages takes time: make it off the event loop."""

    def __init__(self, hits: Sequence[Hit], question: str) -> None:
        self._hits = hits
        self._asked = words_of(question)
        self._sentences = [list(_sentences(hit.chunk.text)) for hit in hits]
        # BM25's weights: a word that is in every sentence tells none from another.
        counts = Counter(word for found in self._sentences for sentence in found for word in sentence.words)
        total = sum(map(len, self._sentences))
        self._weights = {word: math.log(1 + (total - count + 0.5) / (count + 0.5)) for word, count in counts.items()}

    def of(self, answer: str) -> list[dict[str, Any]]:
        """Return one citation per passage, in the order of their numbers in the prompt."""
        said = self._asked | words_of(answer[:HEARD_CHARS])
        quotes = (self._quote(hit.chunk, found, said) for hit, found in zip(self._hits, self._sentences, strict=True))
        return [_citation(i, hit, quote) for i, (hit, quote) in enumerate(zip(self._hits, quotes, strict=True), start=1)]

    def _quote(self, chunk: Chunk, sentences: list[_Sentence], said: frozenset[str]) -> tuple[int, int]:
        """Return where the sentence is that shares most with question and answer; where none does, the whole passage is."""

        def shared(sentence: _Sentence) -> float:
            # Sorted, since sets have no order and sums of floats depend on it.
            return sum(self._weights[word] for word in sorted(sentence.words & said))

        best = max(sentences, key=shared, default=None)
        return (best.start, best.end) if best is not None and shared(best) else (0, len(chunk.text))


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text, whatever their case."""
    return frozenset(_WORD.findall(text.casefold()))


def _sentences(text: str) -> Iterator[_Sentence]:
    start = 0
    for gap in (*_SENTENCE_END.finditer(text), None):
        # Brackets and quotation marks that close a sentence are part of it, the white space after them is not.
        piece = text[start : gap.end() if gap else len(text)]
        stripped = piece.strip()
        if stripped:
            first = start + len(piece) - len(piece.lstrip())
            yield _Sentence(first, first + len(stripped), words_of(stripped))
        start += len(piece)


def _citation(number: int, hit: Hit, quote: tuple[int, int]) -> dict[str, Any]:
    chunk = hit.chunk
    start, end = quote
    return {
        "number": number,
        "document_id": chunk.document_id,
        "title": chunk.title,
        "headings": list(chunk.headings),
        "start": chunk.start,
        "end": chunk.end,
        "score": round(hit.score, 6),
        "quote": chunk.text[start:end],
        "quote_start": chunk.start + start,
        "quote_end": chunk.start + end,
        "text": chunk.text,
    }
