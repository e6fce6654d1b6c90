"""Python's own documentation as Markdown: a real document set that every Python installation carries."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from serve_app.ingest.python_objects import DocumentedModule, DocumentedObject, standard_library

GENERATOR_VERSION = 3  # raise it when the files of the same Python would differ
# Each repeats other topics (`compound` holds if, while, for, try, with, ...) or a module's docstrings.
SKIPPED_TOPICS = frozenset({
    "async", "compound", "customization", "debugger", "dynamic-features", "else", "exceptions", "execmodel", "function",
    "specialnames", "string-methods", "typesmapping", "typesseq-mutable",
})  # fmt: skip
STAMP = ".python-docs.json"  # hidden, so that ingest does not read it
UNDERLINE_LEVELS = {"*": 1, "=": 2, "-": 3, "~": 4, "^": 4}
UNDERLINE = re.compile(r"^([*=~^-])\1{2,}$")
SETEXT = re.compile(r"^ {0,3}(=+|-+) *$", re.MULTILINE)
HASH = re.compile(r"^( {0,3})#", re.MULTILINE)
FENCE = re.compile(r"^( {0,3})(```|~~~)", re.MULTILINE)
MARKUP = re.compile(r'"([^"\n]{1,40})"')


def write_python_docs(folder: Path) -> int:
    """Write the language reference's topics and the standard library's docstrings; return the number of files.

    The files depend on the version of Python only. When they are there already, nothing is written. Files that an
    earlier call wrote and this one does not are removed; other files in the folder are left alone.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}/{GENERATOR_VERSION}"
    stamp = folder / STAMP
    written_before = _written(stamp, version)
    if written_before and all((folder / name).is_file() for name in written_before):
        return len(written_before)
    pages = dict(_pages())
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    for name in set(_written(stamp)) - set(pages):
        (folder / name).unlink(missing_ok=True)
    stamp.write_text(json.dumps({"version": version, "files": sorted(pages)}), encoding="utf-8")
    return len(pages)


def _written(stamp: Path, version: str | None = None) -> list[str]:
    """Return the files that the stamp lists; none when there is no stamp or it is of another version."""
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return list(content["files"]) if version in {None, content["version"]} else []


def _pages() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    for topic, text in sorted(topics.items()):
        if topic in SKIPPED_TOPICS:
            continue
        yield f"reference/{topic.replace('/', '-')}.md", _topic_page(text)
    for module in standard_library():
        yield f"library/{module.name}.md", _module_page(module)


def _topic_page(text: str) -> str:
    """Return a topic with its underlined titles as Markdown headings; `"code"` becomes code."""
    lines: list[str] = []
    for line in text.strip().splitlines():
        if UNDERLINE.match(line) and lines and lines[-1].strip():
            title = MARKUP.sub(r"`\1`", lines.pop())
            lines += [f"{'#' * UNDERLINE_LEVELS[line[0]]} {title}", ""]
        else:
            lines.append(HASH.sub(r"\1\\#", line))
    return "\n".join(lines) + "\n"


def _module_page(module: DocumentedModule) -> str:
    first, _, rest = module.doc.partition("\n")
    summary = first.strip().rstrip(".").removeprefix(f"{module.name} - ").strip()
    if rest.partition("\n")[0].strip():  # the sentence goes on, so its first line says nothing by itself
        summary, rest = "", module.doc
    parts = [f"# {module.name} — {summary}" if summary else f"# {module.name}", _prose(rest)]
    for item in module.objects:
        parts += [_heading(item), _prose(item.doc)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(item: DocumentedObject) -> str:
    level = "###" if item.is_member else "##"
    return f"{level} {'class ' if item.is_class else ''}{item.name}{item.signature}".replace("*", r"\*")


def _prose(doc: str) -> str:
    """Return a docstring that Markdown reads as text: no line of it is a heading or opens a block."""
    return FENCE.sub(r"\1\\\2", HASH.sub(r"\1\\#", SETEXT.sub("", doc))).strip("\n").rstrip()
