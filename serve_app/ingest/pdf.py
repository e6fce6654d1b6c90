"""PDF: the text of each page; a page is a heading, so that an answer can cite it."""

from __future__ import annotations

import io

from serve_app.ingest.documents import Heading, ParsedDocument, UnreadableFile


def parse_pdf(data: bytes, name: str) -> ParsedDocument:
    """Return the text of all pages, in order.

    Raises:
        UnreadableFile: damaged, protected by a password, or without text (a scan).
    """
    try:
        pages, stated = _read(data)
    except UnreadableFile:
        raise
    except Exception as err:  # pypdf raises many kinds on a damaged file: KeyError, ValueError, RecursionError, ...
        raise UnreadableFile(
            f"damaged PDF ({type(err).__name__}); export it again, or repair it with `qpdf IN.pdf OUT.pdf`"
        ) from err
    if not any(page.strip() for page in pages):
        raise UnreadableFile("the PDF has no text (a scan?); add a text layer, for example with `ocrmypdf`")
    return _join(pages, stated or name)


def _read(data: bytes) -> tuple[list[str], str]:
    from pypdf import PasswordType, PdfReader

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
        raise UnreadableFile("it is protected by a password; remove it, for example with `qpdf --decrypt`")
    stated = reader.metadata.title if reader.metadata else None
    return [page.extract_text() for page in reader.pages], (stated or "").strip()


def _join(pages: list[str], title: str) -> ParsedDocument:
    text, headings = "", []
    for number, page in enumerate(pages, start=1):
        headings.append(Heading(1, f"page {number}", len(text), len(text)))
        text += page.strip() + "\n\n"
    return ParsedDocument(title=title, text=text, headings=tuple(headings))
