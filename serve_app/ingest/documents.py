"""A parsed document: its text, and where its headings are."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.errors import ErrorKind, PlatformError


class UnreadableFile(PlatformError):
    """A file that cannot be ingested; the message says why and what to do, without naming the file."""

    kind = ErrorKind.BAD_REQUEST
    code = "unreadable_file"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading, with where its own line or lines are in the text."""

    level: int  # 1 is the outermost
    title: str  # plain text, without markup
    start: int  # character offsets into ParsedDocument.text; start == end for a heading that is not in the text
    end: int


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """What the chunker needs: every offset counts characters of ``text``."""

    title: str
    text: str
    headings: tuple[Heading, ...] = ()  # in the order of the text
