from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.ingest import python_docs
from serve_app.ingest.markdown import parse_markdown
from serve_app.ingest.python_docs import STAMP, write_python_docs
from serve_app.ingest.python_objects import DocumentedModule, DocumentedObject, module_named

TRICKY = "# a comment\nTitle\n-----\n```\nPut [one] *here*.\n==="


def fake_library() -> list[DocumentedModule]:
    join = DocumentedObject("os.path.join", "(a, *p)", TRICKY, is_class=False, is_member=False)
    return [DocumentedModule("os.path", "Common pathname manipulations.\n\nMore.", (join,))]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One module only: reading all of them takes seconds."""
    monkeypatch.setattr(python_docs, "standard_library", fake_library)


@pytest.mark.usefixtures("small")
def test_every_object_is_one_heading_and_docstrings_make_none(tmp_path: Path) -> None:
    write_python_docs(tmp_path)
    document = parse_markdown((tmp_path / "library" / "os.path.md").read_text(encoding="utf-8"), "x")
    assert document.title == "os.path — Common pathname manipulations"
    assert [(h.level, h.title) for h in document.headings] == [(1, document.title), (2, "os.path.join(a, *p)")]


@pytest.mark.usefixtures("small")
def test_the_language_reference_is_in_it_with_its_own_headings(tmp_path: Path) -> None:
    write_python_docs(tmp_path)
    document = parse_markdown((tmp_path / "reference" / "assert.md").read_text(encoding="utf-8"), "x")
    assert document.title == "The assert statement"


@pytest.mark.usefixtures("small")
def test_a_second_call_writes_nothing_and_a_missing_file_is_made_again(tmp_path: Path) -> None:
    count = write_python_docs(tmp_path)
    page = tmp_path / "library" / "os.path.md"
    page.write_text("mine")
    assert write_python_docs(tmp_path) == count
    assert page.read_text() == "mine"
    page.unlink()
    assert write_python_docs(tmp_path) == count
    assert page.read_text(encoding="utf-8").startswith("# os.path")


@pytest.mark.usefixtures("small")
def test_files_of_another_version_go_and_other_peoples_stay(tmp_path: Path) -> None:
    (tmp_path / "old.md").write_text("old")
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / STAMP).write_text('{"version": "2.7", "files": ["old.md"]}')
    write_python_docs(tmp_path)
    assert not (tmp_path / "old.md").exists()
    assert (tmp_path / "notes.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("module", "name", "signature"),
    [
        ("os.path", "os.path.join", "(a, *p)"),
        ("collections", "collections.Counter.most_common", "(n=None)"),
        ("math", "math.isqrt", "(n, /)"),
        ("builtins", "str.upper", "()"),
    ],
    ids=["source", "source-method", "c-function", "c-method"],
)
def test_objects_are_found_in_sources_and_in_c_code(module: str, name: str, signature: str) -> None:
    found = {item.name: item for item in module_named(module).objects}
    assert found[name].signature == signature
    assert found[name].doc
