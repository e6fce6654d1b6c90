"""The documented objects of Python's standard library: from its sources, and for C code from the live objects."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

# Not the library a reader asks about: tests, toys, tools, internals, other platforms, and what 3.13 removed.
SKIPPED = frozenset(
    """aifc antigravity asynchat asyncore audioop bdb cgi cgitb chunk cookiejar crypt ctypes curses dbm distutils doctest
    encodings ensurepip ftplib handlers idlelib imaplib imghdr imp lib2to3 mailbox mailcap mock msilib nis nntplib
    ntpath nturl2path optparse ossaudiodev pdb pickletools pipes poplib pyclbr pydoc pydoc_data sax site-packages smtpd
    smtplib sndhdr socketserver spwd sre_compile sre_constants sre_parse sunau symtable tabnanny telnetlib test tests
    this tkinter turtle turtledemo uu webbrowser wsgiref xdrlib xmlrpc""".split()  # noqa: SIM905
)
# Written in C, in full or in part: their docstrings are on the live objects only. Importing them has no side effects.
LIVE = (
    "array", "atexit", "binascii", "builtins", "cmath", "codecs", "collections", "contextvars", "csv", "datetime",
    "decimal", "errno", "functools", "gc", "hashlib", "io", "itertools", "marshal", "math", "operator", "os",
    "os.path", "pickle", "re", "select", "signal", "socket", "sqlite3", "struct", "sys", "threading", "time",
    "unicodedata", "weakref", "zlib",
)  # fmt: skip
PUBLIC_NAMES = {"posixpath": "os.path"}
LONGEST_SIGNATURE = 120
ADDRESS = re.compile(r" at 0x[0-9a-f]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DocumentedObject:
    """A class, function or method with a docstring; a class may have none when its members have."""

    name: str  # such as collections.Counter.most_common
    signature: str  # such as (n=None); empty when unknown
    doc: str
    is_class: bool
    is_member: bool


@dataclass(frozen=True, slots=True)
class DocumentedModule:
    """A module with a docstring, or with objects that have one."""

    name: str
    doc: str
    objects: tuple[DocumentedObject, ...]


def standard_library() -> Iterator[DocumentedModule]:
    """Yield the public modules of this Python, sorted by name; nothing is run but the imports of ``LIVE``."""
    sources = dict(_sources(Path(sysconfig.get_path("stdlib"))))
    modules = (_module(name, sources.get(name)) for name in sorted({*sources, *LIVE}))
    yield from (module for module in modules if module.doc or module.objects)


def module_named(name: str) -> DocumentedModule:
    """Return one public module.

    Raises:
        KeyError: it is not public, or not in this Python.
    """
    sources = dict(_sources(Path(sysconfig.get_path("stdlib"))))
    return _module(name, None if name in LIVE and name not in sources else sources[name])


def _module(name: str, source: Path | None) -> DocumentedModule:
    doc, objects = _from_source(name, source) if source else ("", [])
    if name in LIVE:
        live = importlib.import_module(name)
        known = {item.name for item in objects}
        doc = doc or _doc_of(live)
        objects += [item for item in _from_live(name, live) if item.name not in known]
    return DocumentedModule(name, doc, tuple(objects))


def _sources(library: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(library):
        folders[:] = sorted(filter(_is_public, folders))
        for path in (Path(folder, file) for file in sorted(files) if file.endswith(".py")):
            *packages, module = path.relative_to(library).with_suffix("").parts
            parts = packages if module == "__init__" else [*packages, module]
            if parts and _is_public(parts[-1]) and parts[0] in sys.stdlib_module_names:
                name = ".".join(parts)
                yield PUBLIC_NAMES.get(name, name), path


def _is_public(name: str) -> bool:
    return name not in SKIPPED and not name.startswith("_")


def _from_source(module: str, path: Path) -> tuple[str, list[DocumentedObject]]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # templates and samples that are no modules
        return "", []
    return ast.get_docstring(tree) or "", list(_in_body(tree.body, module, is_member=False))


def _in_body(body: list[ast.stmt], owner: str, *, is_member: bool) -> Iterator[DocumentedObject]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        name, doc = f"{owner}.{node.name}", ast.get_docstring(node)
        if isinstance(node, ast.ClassDef):
            members = list(_in_body(node.body, name, is_member=True))
            if doc or members:
                yield DocumentedObject(name, "", doc or "", is_class=True, is_member=is_member)
            yield from members
        elif doc:
            yield DocumentedObject(name, _arguments(node, is_member), doc, is_class=False, is_member=is_member)


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef, is_member: bool) -> str:
    decorators = {decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)}
    if "property" in decorators:
        return ""
    written = ast.unparse(node.args)
    if is_member and "staticmethod" not in decorators:
        written = re.sub(r"^(self|cls)(, |$)(/, |/$)?", "", written)
    return _bounded(f"({written})")


def _from_live(module: str, live: ModuleType) -> Iterator[DocumentedObject]:
    for name in sorted(getattr(live, "__all__", None) or vars(live)):
        value = getattr(live, name, None)
        if name.startswith("_") or inspect.ismodule(value) or not _is_documented(value, module):
            continue
        qualified = name if module == "builtins" else f"{module}.{name}"
        yield _live_object(qualified, value, is_member=False)
        if inspect.isclass(value):
            for member in sorted(vars(value)):
                method = getattr(value, member, None)
                if not member.startswith("_") and inspect.isroutine(method) and _doc_of(method):
                    yield _live_object(f"{qualified}.{member}", method, is_member=True)


def _is_documented(value: object, module: str) -> bool:
    if not (inspect.isclass(value) or inspect.isroutine(value)) or not _doc_of(value):
        return False
    home = getattr(value, "__module__", None) or module
    # What a module took from another public one is documented there.
    return home in {module, "builtins"} or home.startswith("_") or home in {"posix", "nt", "posixpath", "genericpath"}


def _live_object(name: str, value: object, *, is_member: bool) -> DocumentedObject:
    return DocumentedObject(name, _signature(value), _doc_of(value), inspect.isclass(value), is_member)


def _signature(value: object) -> str:
    try:
        written = str(inspect.signature(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, AttributeError, NameError):  # the last two: a default that inspect cannot look up
        return ""
    return _bounded(re.sub(r"^\((self|cls|type|\$self)(, /)?(, )?", "(", written))


def _bounded(signature: str) -> str:
    # An address would change with every run, and a long signature is no heading.
    return "(...)" if len(signature) > LONGEST_SIGNATURE or ADDRESS.search(signature) else signature


def _doc_of(value: object) -> str:
    doc = getattr(value, "__doc__", None)
    return inspect.cleandoc(doc) if isinstance(doc, str) and not ADDRESS.search(doc) else ""
