"""Harvest documentation from the running Python: docstrings and pydoc topics.

Pure-Python modules are parsed with ``ast`` and never imported.  A fixed list of
C-implemented modules, which have no source to parse, is imported instead.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

# C modules that hold much of what people ask about and are safe to import.
C_MODULES = (
    "builtins math cmath itertools time posix _io _csv _collections _functools _struct zlib "
    "select _socket _operator _random _json _pickle _bisect _heapq _thread sys gc marshal "
    "array _datetime _sqlite3 _ssl _hashlib _queue _asyncio _codecs _weakref _signal unicodedata"
).split()
# Public names under which the C implementations are documented.
PUBLIC_NAMES = {"posix": "os", "posixpath": "os.path"}
SKIPPED_FOLDERS = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idle_test"}
HELD_OUT_PERCENT = 10


@dataclass(frozen=True)
class Entry:
    """One documented thing: a module, class, function or topic section."""

    name: str
    heading: str
    kind: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """All entries of one module or of one pydoc topic."""

    name: str
    entries: tuple[Entry, ...]

    @property
    def held_out(self) -> bool:
        """Whether evaluation, and never training, may read this document."""
        return int(md5(self.name.encode()).hexdigest(), 16) % 100 < HELD_OUT_PERCENT


def split_paragraphs(text: str) -> tuple[str, ...]:
    """Split on blank lines; drop trailing blanks, keep inner line breaks."""
    parts = re.split(r"\n[ \t]*\n", text.expandtabs(4))
    return tuple(p.rstrip().strip("\n") for p in parts if p.strip())


def load_corpus() -> list[Document]:
    """Return every document, in an order that does not depend on the file system."""
    documents = [*_source_documents(), *_c_documents(), *_topic_documents()]
    return sorted((d for d in documents if d.entries), key=lambda d: d.name)


def _source_documents() -> Iterator[Document]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED_FOLDERS & set(relative.parts):
            continue
        parts = [p for p in relative.with_suffix("").parts if p != "__init__"]
        module = ".".join(parts)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        name = PUBLIC_NAMES.get(module, module)
        yield Document(name, tuple(_module_entries(tree, name)))


def _module_entries(tree: ast.Module, module: str) -> Iterator[Entry]:
    doc = ast.get_docstring(tree)
    if doc:
        yield Entry(module, module, "module", split_paragraphs(doc))
    yield from _body_entries(tree.body, "")


def _body_entries(body: list[ast.stmt], prefix: str) -> Iterator[Entry]:
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        name = prefix + node.name
        doc = ast.get_docstring(node)
        is_class = isinstance(node, ast.ClassDef)
        if doc:
            heading = name if isinstance(node, ast.ClassDef) else f"{name}{_signature(node)}"
            kind = "class" if is_class else "method" if prefix else "function"
            yield Entry(name, heading, kind, split_paragraphs(doc))
        if is_class:
            yield from _body_entries(node.body, name + ".")


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    text = ast.unparse(node.args)
    text = re.sub(r"^(self|cls)(, )?", "", text)
    return f"({text})" if len(text) < 60 else "(...)"


def _c_documents() -> Iterator[Document]:
    for module_name in C_MODULES:
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        name = PUBLIC_NAMES.get(module_name, module_name.lstrip("_"))
        yield Document(name, tuple(_object_entries(module)))


def _object_entries(module: object) -> Iterator[Entry]:
    for attribute, value in sorted(vars(module).items()):
        doc = getattr(value, "__doc__", None)
        kind = "class" if isinstance(value, type) else "function"
        if attribute.startswith("_") or not isinstance(doc, str) or not callable(value):
            continue
        yield Entry(attribute, attribute + "()" * (kind == "function"), kind, _clean(doc))
        if isinstance(value, type):
            for member, method in sorted(vars(value).items()):
                method_doc = getattr(method, "__doc__", None)
                if not member.startswith("_") and isinstance(method_doc, str):
                    full = f"{attribute}.{member}"
                    yield Entry(full, full + "()", "method", _clean(method_doc))


def _clean(doc: str) -> tuple[str, ...]:
    return split_paragraphs(inspect.cleandoc(doc))


def _topic_documents() -> Iterator[Document]:
    topics = importlib.import_module("pydoc_data.topics").topics
    for name, text in sorted(topics.items()):
        yield Document(f"topic:{name}", tuple(_topic_entries(name, text)))


def _topic_entries(topic: str, text: str) -> Iterator[Entry]:
    """Cut a topic at its underlined headings."""
    pieces = re.split(r"(?m)^(\S[^\n]*)\n([*=\-~^])\2{3,}\n", text)
    if pieces[0].strip():
        yield Entry(topic, topic, "topic", split_paragraphs(pieces[0]))
    for heading, body in zip(pieces[1::3], pieces[3::3], strict=True):
        heading = heading.replace('"', "").strip()
        if body.strip():
            yield Entry(heading, heading, "topic", split_paragraphs(body))
