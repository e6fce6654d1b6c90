"""Files to parsed documents, by suffix."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from pathlib import PurePath
from types import MappingProxyType

from serve_app.ingest.documents import ParsedDocument, UnreadableFile
from serve_app.ingest.html import parse_html
from serve_app.ingest.markdown import parse_markdown
from serve_app.ingest.pdf import parse_pdf

# Part of every content hash: raise it when a parser changes what it returns, and files are ingested again.
PARSER_VERSION = 1
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def parse(path: PurePath, data: bytes) -> ParsedDocument:
    """Return the document that a file holds; its suffix says how to read it.

    Raises:
        UnreadableFile: empty, binary, not UTF-8, damaged, or of a suffix that is not in ``PARSERS``.
    """
    parser = PARSERS.get(path.suffix.lower())
    if parser is None:
        raise UnreadableFile(f"{path.suffix or 'no suffix'} is not supported; supported: {', '.join(sorted(PARSERS))}")
    if not data.strip():
        raise UnreadableFile("the file is empty; fill or remove it")
    document = parser(data, path.stem)
    if not document.text.strip():
        raise UnreadableFile("there is no text in it; fill or remove it")
    return document


def parse_text(data: bytes, name: str) -> ParsedDocument:
    """Return plain text as one document without headings."""
    return ParsedDocument(title=name, text=decode(data))


def decode(data: bytes) -> str:
    """Return UTF-8 (or, with a byte order mark, UTF-16 or UTF-32) as text with ``\\n`` line ends.

    Raises:
        UnreadableFile: it is binary, or in another encoding.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data:
        raise UnreadableFile("this is binary data, not text; remove it, or give it the suffix of its format")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as err:
        raise UnreadableFile(
            f"not valid {encoding} at byte {err.start}; convert it, for example with `iconv -f latin1 -t utf-8`"
        ) from err
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _markdown(data: bytes, name: str) -> ParsedDocument:
    return parse_markdown(decode(data), name)


PARSERS: Mapping[str, Callable[[bytes, str], ParsedDocument]] = MappingProxyType(
    {
        ".txt": parse_text,
        ".text": parse_text,
        ".rst": parse_text,
        ".md": _markdown,
        ".markdown": _markdown,
        ".html": parse_html,
        ".htm": parse_html,
        ".pdf": parse_pdf,
    }
)
