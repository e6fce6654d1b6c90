"""The chart's values.yaml as documented keys: each key that has a `# --` line, in order, with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent.parent / "helm" / "manta"
_KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z_][\w.-]*):")
_COMMENT = re.compile(r"^ *# ?(?P<mark>-- )?(?P<text>.*)$")


@dataclass(frozen=True, slots=True)
class Value:
    """A key of values.yaml."""

    path: tuple[str, ...]
    description: str
    default: Any

    @property
    def name(self) -> str:
        """The path as operators write it after `--set`."""
        return ".".join(self.path)


def defaults() -> dict[str, Any]:
    """Return values.yaml as data."""
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return found


def documented(text: str | None = None) -> list[Value]:
    """Return every documented key, in the order of the file."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8") if text is None else text
    data = yaml.safe_load(text)
    return [Value(path, description, _at(data, path)) for path, description in _comments(text)]


def leaves(values: list[Value]) -> list[Value]:
    """Return the keys that have no documented keys below them."""
    parents = {value.path[:i] for value in values for i in range(len(value.path))}
    return [value for value in values if value.path not in parents]


def _comments(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    stack: list[tuple[int, str]] = []
    words: list[str] = []
    for line in text.splitlines():
        if (key := _KEY.match(line)) is not None:
            indent = len(key["indent"])
            stack = [(depth, name) for depth, name in stack if depth < indent] + [(indent, key["name"])]
            if words:
                yield tuple(name for _, name in stack), " ".join(words)
            words = []
        elif (comment := _COMMENT.match(line)) is not None and (comment["mark"] or words):
            words = [*([] if comment["mark"] else words), comment["text"]]
        else:
            words = []


def _at(data: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        data = data[part]
    return data
