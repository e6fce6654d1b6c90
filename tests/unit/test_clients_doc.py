from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.e2e.clients.programs import PROGRAMS

DOC = (Path(__file__).resolve().parents[2] / "docs/clients.md").read_text(encoding="utf-8")
CELL = re.compile(r"`([\w-]+)/([\w-]+)`")  # client/check
KNOWN = {(program.client, check) for program in PROGRAMS for check in program.checks()}


def test_every_check_that_the_table_names_is_in_a_program() -> None:
    named = set(CELL.findall(DOC))
    assert named, "the table names no checks"
    assert named <= KNOWN, sorted(named - KNOWN)


def test_every_check_is_in_the_table() -> None:
    # What the second OpenAI SDK shows is what the first one does.
    shown = {(client, check) for client, check in KNOWN if client != "openai-2"}
    assert shown <= set(CELL.findall(DOC)), sorted(shown - set(CELL.findall(DOC)))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: f"{program.client}-{program.module}")
def test_no_check_of_a_program_goes_unread(program: object) -> None:
    checks = program.checks()  # type: ignore[attr-defined]
    assert len(checks) == len(set(checks))
    assert len(checks) >= 5


def test_the_python_snippets_parse() -> None:
    snippets = re.findall(r"^```python\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    assert len(snippets) >= 5
    for snippet in snippets:
        ast.parse(snippet)
