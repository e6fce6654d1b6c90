from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.ingest.documents import ParsedDocument, UnreadableFile
from serve_app.ingest.markdown import parse_markdown
from serve_app.ingest.parse import parse
from tests.unit.serve_app.ingest.files import pdf_with

HTML = b"""<html><head><title>The  page</title><style>x{}</style></head><body><nav>menu</nav><main>
<h1>Top <em>level</em></h1><p>First
  line.<br>Second</p><!-- no --><pre>a
  b</pre><h2>Sub</h2><ul><li>one</li><li>two</li></ul><script>bad()</script></main><footer>end</footer></body></html>"""


def read(name: str, data: bytes) -> ParsedDocument:
    return parse(Path(name), data)


def marked(document: ParsedDocument) -> list[tuple[int, str, str]]:
    return [(h.level, h.title, document.text[h.start : h.end]) for h in document.headings]


def test_markdown_keeps_its_source_and_knows_its_headings() -> None:
    source = "# *One* `x`\n\ntext\n\nTwo\n---\n\n```\n# not a heading\n```\n\n- # nor this\n"
    document = read("a.md", source.encode())
    assert document.text == source
    assert document.title == "One x"
    assert marked(document) == [(1, "One x", "# *One* `x`\n"), (2, "Two", "Two\n---\n")]


def test_front_matter_gives_the_title_and_is_not_text() -> None:
    source = "---\ntitle: 'Stated'\ntags: [a]\n---\n# Heading\nbody\n"
    document = read("a.md", source.encode())
    assert document.title == "Stated"
    assert document.text.strip() == "# Heading\nbody"
    assert document.text.index("body") == source.index("body")
    assert [h.title for h in document.headings] == ["Heading"]


@given(st.text(st.sampled_from("#=- \n\ta\x0b\x0c\u2028>`*_[]()é"), max_size=60))
def test_markdown_headings_lie_inside_the_text_and_in_order(source: str) -> None:
    document = parse_markdown(source, "name")
    assert len(document.text) == len(source)
    bounds = [bound for h in document.headings for bound in (h.start, h.end)]
    assert bounds == sorted(bounds)
    assert all(0 <= bound <= len(source) for bound in bounds)
    assert all(
        document.text[h.start : h.end].lstrip(" \t#").startswith(h.title[:1]) for h in document.headings if h.title.isalpha()
    )


def test_html_is_what_a_reader_sees() -> None:
    document = read("a.html", HTML)
    assert document.title == "The page"
    assert document.text == "Top level\nFirst line.\nSecond\na\n  b\nSub\none\ntwo\n"
    assert marked(document) == [(1, "Top level", "Top level\n"), (2, "Sub", "Sub\n")]


def test_html_without_a_title_takes_its_first_heading_or_its_name() -> None:
    assert read("a.html", b"<h1>First</h1>x").title == "First"
    assert read("a.html", b"<p>x</p>").title == "a"


def test_pdf_pages_are_headings() -> None:
    document = read("a.pdf", pdf_with("Hello first page", "Second one"))
    assert document.title == "a"
    assert document.text == "Hello first page\n\nSecond one\n\n"
    assert marked(document) == [(1, "page 1", ""), (1, "page 2", "")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("grün\r\nrot\rblau".encode(), "grün\nrot\nblau"),
        ("grün".encode("utf-8-sig"), "grün"),
        ("grün".encode("utf-16"), "grün"),
    ],
    ids=["utf-8-crlf", "utf-8-bom", "utf-16"],
)
def test_text_is_decoded_with_plain_line_ends(data: bytes, expected: str) -> None:
    assert read("note.txt", data) == ParsedDocument("note", expected)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.md", b"", "empty"),
        ("a.txt", b" \n\t ", "empty"),
        ("a.md", "grün".encode("latin-1"), r"byte 2.*iconv -f latin1"),
        ("a.txt", b"\x00\x01\x02junk", "binary"),
        ("a.html", b"\x00\x01\x02junk", "binary"),
        ("a.html", b"<script>only()</script>", "no text"),
        ("a.html", b"<b>" * 5000 + b"x", "nested too deeply"),
        ("a.pdf", b"%PDF-1.7\nthis is not a pdf", "damaged PDF.*qpdf"),
        ("a.pdf", b"no pdf at all", "damaged PDF"),
        ("a.pdf", pdf_with("Hello there")[:400], "damaged PDF"),
        ("a.pdf", pdf_with("", ""), "no text.*ocrmypdf"),
        ("a.pdf", pdf_with("secret", password="pw"), "password.*qpdf --decrypt"),
        ("a.docx", b"x", r"\.docx is not supported; supported: .*\.md"),
        ("Makefile", b"x", "no suffix is not supported"),
    ],
    ids=[
        "empty", "blank", "latin-1", "binary-text", "binary-html", "script-only", "deep-html", "corrupt-pdf", "no-pdf",
        "cut-pdf", "scanned-pdf", "locked-pdf", "other-suffix", "no-suffix",
    ],
)  # fmt: skip
def test_an_unreadable_file_says_why_and_what_to_do(name: str, data: bytes, message: str) -> None:
    with pytest.raises(UnreadableFile, match=message):
        read(name, data)
