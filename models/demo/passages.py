"""Render documents into the short Markdown passages that a retriever would return."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from corpus import Document, Entry

SENTENCE_END = re.compile(r"[.!?][\"')\]`]*\s+(?=[A-Z\"`'(*\[])")
ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "cf.", "resp.")
SYLLABLES = (
    "ba co di fu ga he jo ki lu me ni po qua re si to ur va we xi yo za "
    "str get set tri plo dex ver mon lin cal par sub tor nex"
).split()


@dataclass(frozen=True)
class Span:
    """A sentence of a passage; ``names`` is filled when it introduces an entry."""

    sentence: str
    names: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Passage:
    """One passage and the sentences in it that can be asked for."""

    title: str
    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Style:
    """How the passages of one context look."""

    in_title: bool
    in_text: bool
    unwrap: bool
    mark: str
    join: str

    @staticmethod
    def draw(rng: random.Random) -> Style:
        """Choose a style; the entry's name is in the title, in the text or in both."""
        in_title, in_text = rng.choice([(True, False), (False, True), (False, True), (True, True)])
        mark = rng.choice(["# {}", "## {}", "## {}", "### {}", "### `{}`", "## `{}`", "**{}**"])
        join = rng.choice([".", " > ", " › ", " - ", ": ", " / "])
        return Style(in_title, in_text, rng.random() < 0.65, mark, join)


def split_sentences(text: str) -> list[str]:
    """Cut prose into sentences, each an exact part of ``text``."""
    sentences, start = [], 0
    for match in SENTENCE_END.finditer(text):
        if text[start : match.end()].rstrip().endswith(ABBREVIATIONS):
            continue
        sentences.append(text[start : match.end()].rstrip())
        start = match.end()
    return [*sentences, text[start:].strip()]


def is_prose(paragraph: str) -> bool:
    """Tell sentences from code, lists, tables and signatures."""
    lines = paragraph.splitlines()
    if any(line.startswith((" ", ">>>", "- ", "* ", "|", "+", "..")) for line in lines):
        return False
    return len(re.findall(r"[a-z]{2,}", paragraph)) >= 3 and " -> " not in lines[0]


def render(
    document: Document, start: int, budget: int, style: Style, rng: random.Random
) -> Passage:
    """Render entries from ``start`` on until about ``budget`` characters are used."""
    parts: list[str] = []
    spans: list[Span] = []
    module = document.name.removeprefix("topic:")
    for entry in document.entries[start:]:
        heading = entry.heading if rng.random() < 0.7 else entry.name
        room = budget - sum(map(len, parts))
        if parts and (room < 80 or not style.in_text):
            break
        if style.in_text:
            parts.append(style.mark.format(heading))
        body, found = _render_body(entry, module, room, style, rng)
        parts += body
        spans += found
    entry = document.entries[start]
    title = module
    if style.in_title and entry.name != module:
        title = module + style.join + (entry.name if rng.random() < 0.7 else entry.heading)
    return Passage(title, "\n\n".join(parts), tuple(spans))


def _render_body(
    entry: Entry, module: str, room: int, style: Style, rng: random.Random
) -> tuple[list[str], list[Span]]:
    """Render paragraphs of an entry, at times from its middle, and list their sentences."""
    first = 0
    if len(entry.paragraphs) > 2 and rng.random() < 0.3:
        first = rng.randrange(1, len(entry.paragraphs))
    parts: list[str] = []
    spans: list[Span] = []
    for index, paragraph in enumerate(entry.paragraphs[first:], first):
        prose = is_prose(paragraph)
        if not prose and rng.random() < 0.5:
            continue
        text = re.sub(r"\s*\n\s*", " ", paragraph) if prose and style.unwrap else paragraph
        if room < len(text):
            text = _shorten(text, room) if prose else ""
        if not text:
            break
        room -= len(text)
        parts.append(text)
        for sentence in split_sentences(text) if prose else ():
            introduces = index == 0 and not spans
            names = _names(entry, module) if introduces else ()
            spans.append(Span(sentence, names, entry.kind))
    return parts, spans


def _shorten(text: str, room: int) -> str:
    """Keep the leading sentences that fit."""
    kept = ""
    for sentence in split_sentences(text):
        end = text.index(sentence, len(kept)) + len(sentence)
        if end > room:
            break
        kept = text[:end]
    return kept


def _names(entry: Entry, module: str) -> tuple[str, ...]:
    last = entry.name.rsplit(".", 1)[-1]
    if entry.kind in ("topic", "module"):
        return (entry.name,)
    return tuple(dict.fromkeys((entry.name, last, f"{module}.{entry.name}")))


def invent_word(rng: random.Random) -> str:
    """Return a made-up identifier."""
    words = ["".join(rng.choices(SYLLABLES, k=rng.choice([1, 2, 2, 3]))) for _ in range(2)]
    style = rng.random()
    if style < 0.4:
        return words[0]
    return "_".join(words) if style < 0.75 else words[0].title() + words[1].title()


def invent_document(words: list[str], rng: random.Random) -> Document:
    """Return a document of random words, which only reading can answer."""
    module = invent_word(rng)
    entries = []
    for _ in range(rng.randint(1, 5)):
        paragraphs = []
        for _ in range(rng.randint(1, 2)):
            lengths = [rng.randint(4, 14) for _ in range(rng.randint(1, 3))]
            sentences = [" ".join(rng.choices(words, k=n)).capitalize() + "." for n in lengths]
            paragraphs.append(" ".join(sentences))
        name = invent_word(rng)
        kind = rng.choice(["function", "class", "topic"])
        heading = name + "()" * (kind == "function")
        entries.append(Entry(name, heading, kind, tuple(paragraphs)))
    return Document(module, tuple(entries))


def disguise(document: Document, rng: random.Random) -> Document:
    """Rename every entry, so that no name can be known by heart."""
    entries = []
    for entry in document.entries:
        last = entry.name.rsplit(".", 1)[-1]
        pattern = re.compile(rf"(?<!\w){re.escape(last)}(?!\w)")
        fresh = invent_word(rng)
        name, heading, *paragraphs = (
            pattern.sub(fresh, text) for text in (entry.name, entry.heading, *entry.paragraphs)
        )
        entries.append(replace(entry, name=name, heading=heading, paragraphs=tuple(paragraphs)))
    return Document(document.name, tuple(entries))
