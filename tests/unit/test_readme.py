from __future__ import annotations

import ast
import re
from pathlib import Path

import typer.main

from serve_app.cli import app
from serve_app.loading import parse_platform

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_configuration_example_is_valid() -> None:
    [example] = blocks("yaml")
    assert [m.name for m in parse_platform(example, name="README.md").models] == ["chat"]


def test_the_python_snippets_parse() -> None:
    for snippet in blocks("python"):
        ast.parse(snippet)


def test_the_command_table_lists_every_command() -> None:
    listed = re.findall(r"^\| `manta (\w+)", README, re.MULTILINE)
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    assert sorted(listed) == sorted(group.commands)


def test_the_quick_start_is_two_commands() -> None:
    assert blocks("console")[0] == "make run\nmake test\n"
