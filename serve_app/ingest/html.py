"""HTML: the readable text of a page, with its headings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PageElement, PreformattedString

from serve_app.ingest.documents import Heading, ParsedDocument, UnreadableFile

HEADINGS = {f"h{level}": level for level in range(1, 7)}
BLOCK_NAMES = """address article aside blockquote body br dd details div dl dt fieldset figcaption figure footer form
header hr html li main ol p pre section summary table tr ul"""
BLOCKS = frozenset(BLOCK_NAMES.split())
NOT_READ = ["script", "style", "template", "noscript", "svg", "nav", "head", "iframe", "button", "select"]
SPACES = re.compile(r"\s+")


@dataclass
class _Page:
    """Text as it is put together."""

    pieces: list[str] = field(default_factory=list)
    length: int = 0
    headings: list[Heading] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Append text, without a space at the start of a line."""
        if not self.pieces or self.pieces[-1].endswith(("\n", " ")):
            text = text.removeprefix(" ")
        if text:
            self.pieces.append(text)
            self.length += len(text)

    def end_line(self) -> None:
        """Start a new line, unless one just began."""
        if self.pieces and not self.pieces[-1].endswith("\n"):
            self.pieces.append("\n")
            self.length += 1


def parse_html(data: bytes, name: str) -> ParsedDocument:
    """Return what a reader sees: navigation, scripts and styles are left out, ``<main>`` is preferred.

    Raises:
        UnreadableFile: it is binary, or its encoding is not the one it declares.
    """
    if data[:4] in {b"%PDF", b"\x89PNG"} or (b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff"))):
        raise UnreadableFile("this is binary data, not HTML; remove it, or give it the suffix of its format")
    soup = BeautifulSoup(data, "html.parser")
    if soup.contains_replacement_characters:
        raise UnreadableFile("its bytes do not fit the encoding it declares; convert it to UTF-8")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    for tag in soup.find_all(NOT_READ):
        tag.decompose()
    page = _Page()
    try:
        _read(soup.find("main") or soup.find("article") or soup.body or soup, page)
    except RecursionError as err:
        raise UnreadableFile("its elements are nested too deeply; simplify it") from err
    first = next((heading.title for heading in page.headings if heading.level == 1), name)
    return ParsedDocument(title=title or first, text="".join(page.pieces), headings=tuple(page.headings))


def _read(element: PageElement, page: _Page, *, is_verbatim: bool = False) -> None:
    if isinstance(element, NavigableString):
        if not isinstance(element, PreformattedString):  # comments, doctypes, processing instructions
            page.add(str(element) if is_verbatim else SPACES.sub(" ", str(element)))
    elif isinstance(element, Tag) and element.name in HEADINGS:
        _read_heading(element, page)
    elif isinstance(element, Tag):
        _read_tag(element, page, is_verbatim=is_verbatim)


def _read_tag(element: Tag, page: _Page, *, is_verbatim: bool) -> None:
    is_block = element.name in BLOCKS
    if is_block:
        page.end_line()
    for child in element.children:
        _read(child, page, is_verbatim=is_verbatim or element.name == "pre")
    if is_block:
        page.end_line()
    elif element.name in {"td", "th"}:
        page.add(" ")


def _read_heading(element: Tag, page: _Page) -> None:
    title = " ".join(element.get_text(" ").replace("¶", " ").split())
    if not title:
        return
    page.end_line()
    start = page.length
    page.add(title)
    page.end_line()
    page.headings.append(Heading(HEADINGS[element.name], title, start, page.length))
