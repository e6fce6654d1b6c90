"""Markdown: the text is the source itself, so offsets are offsets into the file."""

from __future__ import annotations

import re
from functools import cache
from itertools import accumulate, pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from serve_app.ingest.documents import Heading, ParsedDocument

FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
FRONT_TITLE = re.compile(r"^title:[ \t]*[\"']?(.+?)[\"']?[ \t]*$", re.MULTILINE)
NOT_NEWLINE = re.compile(r"[^\n]")


def parse_markdown(source: str, name: str) -> ParsedDocument:
    """Return the source with its headings (ATX and setext; not those in code, lists or quotes).

    YAML front matter is blanked out, not cut out, so that offsets stay true. The title is the front matter's, else the
    first heading of level 1, else ``name``.
    """
    front = FRONT_MATTER.match(source)
    text = NOT_NEWLINE.sub(" ", front.group()) + source[front.end() :] if front else source
    headings = tuple(_headings(text))
    stated = FRONT_TITLE.search(front.group()) if front else None
    first = next((heading.title for heading in headings if heading.level == 1), name)
    return ParsedDocument(title=stated.group(1) if stated else first, text=text, headings=headings)


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark")


def _headings(text: str) -> list[Heading]:
    starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    tokens = _parser().parse(text)
    return [
        Heading(
            level=int(opening.tag[1]),
            title=_plain(inline),
            start=starts[opening.map[0]],
            end=min(starts[opening.map[1]], len(text)),
        )
        for opening, inline in pairwise(tokens)
        if opening.type == "heading_open" and opening.level == 0 and opening.map
    ]


def _plain(inline: Token) -> str:
    texts = (" " if part.type == "softbreak" else part.content for part in inline.children or ())
    return " ".join("".join(texts).split())
