"""The pages of docs/operations as data: their values files, their commands, their links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "operations"
_FENCE = re.compile(r"^```(?P<kind>\w+)(?: (?P<title>[\w.-]+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"([^.\[\]]+)|\[\d+\]")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    kind: str
    title: str
    text: str


def pages() -> list[Path]:
    """Return the pages that are written by hand; values-errors.md has a script and a test of its own."""
    return [page for page in sorted(FOLDER.glob("*.md")) if page.name != "values-errors.md"]


def blocks(kind: str) -> list[Block]:
    """Return the blocks of a kind on all pages."""
    found = []
    for page in pages():
        fences = _FENCE.finditer(page.read_text(encoding="utf-8"))
        found += [Block(page.name, each["kind"], each["title"] or "", each["text"]) for each in fences]
    return [block for block in found if block.kind == kind]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield (page, words) of every command."""
    for block in blocks("console"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield block.page, words


def is_in(schema: Json, path: str) -> bool:
    """Whether values may have a key, by the chart's schema; `models[0].weight` goes into a list's entries."""
    nodes = [schema]
    for match in _PATH.finditer(path):
        nodes = [*_below(schema, nodes, match[1])]
    return bool(nodes)


def _below(schema: Json, nodes: list[Json], key: str | None) -> Iterator[Json]:
    for node in _resolved(schema, nodes):
        found = node.get("items") if key is None else node.get("properties", {}).get(key, node.get("additionalProperties"))
        if isinstance(found, dict):
            yield found


def _resolved(schema: Json, nodes: list[Json]) -> Iterator[Json]:
    for node in nodes:
        yield node
        if "$ref" in node:
            yield from _resolved(schema, [schema["$defs"][node["$ref"].rsplit("/", 1)[1]]])
        yield from _resolved(schema, [*node.get("allOf", [])])
