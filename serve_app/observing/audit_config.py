"""What a new document changes, by paths: numbers and switches with their values, texts without, as one may be a secret."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

MOST_CHANGES = 100
_NOTHING = object()


def digest(document: object) -> str:
    """Return what tells two documents apart."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()[:12]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the leaves that differ, each with its path, such as ``models[chat].variants[canary].weight``.

    What is named in a list is found by its name, so that one that comes first moves no other.
    """
    old, new = dict(_leaves("", before)), dict(_leaves("", after))
    paths = [path for path in {**old, **new} if old.get(path, _NOTHING) != new.get(path, _NOTHING)]
    return [_change(path, old.get(path, _NOTHING), new.get(path, _NOTHING)) for path in sorted(paths)]


def _change(path: str, before: object, after: object) -> dict[str, Any]:
    made: dict[str, Any] = {"path": path}
    if before is _NOTHING or after is _NOTHING:
        made["is"] = "new" if before is _NOTHING else "gone"
    made.update((name, value) for name, value in (("before", before), ("after", after)) if _is_told(value))
    return made


def _is_told(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from _leaves(f"{path}.{name}" if path else str(name), each)
    elif isinstance(value, list | tuple) and value:
        names = [each.get("name") if isinstance(each, Mapping) else None for each in value]
        are_names = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
        for i, each in enumerate(value):
            yield from _leaves(f"{path}[{names[i] if are_names else i}]", each)
    else:
        # A list or mapping that is empty is a leaf as well: to empty it is a change.
        yield path, value
