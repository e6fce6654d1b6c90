"""Files that are made from others: written, or compared with what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def settle(file: Path, text: str, *, command: str, arguments: Sequence[str]) -> int:
    """Write the file, or with ``--check`` only compare it; return the exit code, 1 where it is out of date."""
    if "--check" in arguments:
        is_current = file.exists() and file.read_text(encoding="utf-8") == text
        print(f"{file.name} is up to date" if is_current else f"{file.name} is out of date: run {command}")
        return 0 if is_current else 1
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    print(f"wrote {file}")
    return 0
