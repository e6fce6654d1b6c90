"""YamlDocument: the plain data of a YAML text, and the line of every field in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml

from serve_app.config_rules import FieldPath

# A platform's document is a few KiB. The bounds keep a hostile one (nesting, aliases of aliases) from costing
# more than a moment: PyYAML itself has none.
MAX_CHARACTERS = 256 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000
MERGE_TAG = "tag:yaml.org,2002:merge"
PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "map", "seq", "timestamp")}

HINTS = {
    "cannot start any token": "put quotes around text that starts with it",
    "mapping values are not allowed here": "check the indentation, and put quotes around text that contains `: `",
    "expected a single document": "keep one document and remove the other `---` part",
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with a bound on nesting; it reads `1e+06` as a number.

    YAML 1.1 asks for a dot in it, but that is how Helm prints a million.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Bounded here, before the nodes exist: the scanner's work grows with the square of the open brackets."""
        if self._depth > MAX_DEPTH:
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise YamlProblem(f"nested deeper than {MAX_DEPTH} levels", line)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789"))


class YamlProblem(ValueError):
    """The text cannot be read as a YAML document; ``line`` counts from 1, None means the whole file."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(slots=True)
class YamlDocument:
    """A mapping with text keys, JSON-like values, and where each of them stands.

    Attributes:
        data: the values.
        lines: path -> line (from 1) of a field's key or an item's start.
        raw: path -> a plain scalar as it is written, before YAML turned `yes` into true.
        problems: (path, line, message) of duplicate keys and of keys that are not text.
    """

    data: dict[str, object] = field(default_factory=dict)
    lines: dict[FieldPath, int] = field(default_factory=dict)
    raw: dict[FieldPath, str] = field(default_factory=dict)
    problems: list[tuple[FieldPath, int, str]] = field(default_factory=list)

    def line_of(self, path: FieldPath) -> int:
        """Return the line of the nearest field that encloses the path and is written in the document."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(text: str) -> YamlDocument:
    """Return the document of a text.

    Raises:
        YamlProblem: no valid YAML, not one mapping, or over the bounds of size, depth and number of values.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlProblem(f"the text has {len(text):,} characters, at most {MAX_CHARACTERS:,} are read", None)
    loader = _Loader("")
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise YamlProblem("the file is empty; `manta schema` prints what may stand in it", None)
        if not isinstance(root, yaml.MappingNode):
            raise YamlProblem("expected fields such as `models:` at the top level", _line(root))
        return _Reader(loader).document(root)
    except (yaml.MarkedYAMLError, yaml.reader.ReaderError) as err:
        raise _plain(err, text) from err
    except RecursionError as err:
        raise YamlProblem("a mapping merges itself by `<<`", None) from err
    finally:
        loader.dispose()


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _plain(err: yaml.MarkedYAMLError | yaml.reader.ReaderError, text: str) -> YamlProblem:
    if isinstance(err, yaml.reader.ReaderError):
        line = text.count("\n", 0, err.position) + 1
        return YamlProblem(f"the character {chr(err.character)!r} is not allowed in YAML", line)
    mark = err.problem_mark or err.context_mark
    if "'\\t'" in (err.problem or ""):
        return YamlProblem("a tab stands where YAML takes only spaces", mark.line + 1 if mark else None)
    what = " ".join(filter(None, (err.context and f"{err.context},", err.problem)))
    hint = next((f"; {hint}" for sign, hint in HINTS.items() if sign in what), "")
    return YamlProblem(f"no valid YAML: {what}{hint}", mark.line + 1 if mark else None)


class _Reader:
    """Turns nodes into data. Aliases are followed by value, so the values they stand for count each time."""

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self._document = YamlDocument()
        self._left = MAX_VALUES

    def document(self, root: yaml.MappingNode) -> YamlDocument:
        self._document.data = self._mapping(root, ())
        return self._document

    def _value(self, node: yaml.Node, path: FieldPath) -> object:
        self._count(node, path)
        if node.tag not in PLAIN_TAGS:
            raise YamlProblem(f"the tag {_short(node.tag)} is not supported; write the plain value", _line(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(child, (*path, i)) for i, child in enumerate(node.value)]
        return self._scalar(node, path) if isinstance(node, yaml.ScalarNode) else None

    def _count(self, node: yaml.Node, path: FieldPath) -> None:
        self._left -= 1
        if self._left < 0:
            raise YamlProblem(f"more than {MAX_VALUES:,} values, counting those that aliases repeat", _line(node))
        if len(path) > MAX_DEPTH:
            raise YamlProblem("an alias contains itself, or aliases nest too deep", _line(node))

    def _item(self, node: yaml.Node, path: FieldPath) -> object:
        self._document.lines[path] = _line(node)
        return self._value(node, path)

    def _scalar(self, node: yaml.ScalarNode, path: FieldPath) -> object:
        if node.style is None:
            self._document.raw[path] = node.value
        if node.tag.endswith(":timestamp"):
            return str(node.value)  # JSON knows no dates, and `version: 2026-01-01` means the text
        try:
            value: object = self._loader.construct_object(node)
        except (ValueError, KeyError) as err:
            raise YamlProblem(f"{node.value[:40]!r} is not a valid {_short(node.tag)}", _line(node)) from err
        return value

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, object]:
        merged: dict[str, object] = {}
        for _, value in (pair for pair in node.value if pair[0].tag == MERGE_TAG):
            merged |= self._merged(value, path)
        own: dict[str, object] = {}
        for key, value in (pair for pair in node.value if pair[0].tag != MERGE_TAG):
            name = self._key(key, path, own)
            if name is not None:
                self._document.lines[(*path, name)] = _line(key)
                own[name] = self._value(value, (*path, name))
        return merged | own

    def _key(self, key: yaml.Node, path: FieldPath, seen: dict[str, object]) -> str | None:
        """Return the name, or None (and a problem) when it stands there already."""
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            written = f"`{key.value}`" if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            self._document.problems.append((path, _line(key), f"field names are text, got {written}; put quotes around it"))
            return None
        if key.value in seen:
            first = self._document.lines[(*path, key.value)]
            message = f"`{key.value}` stands here twice, first on line {first}"
            self._document.problems.append(((*path, key.value), _line(key), message))
            return None
        return str(key.value)

    def _merged(self, node: yaml.Node, path: FieldPath) -> dict[str, object]:
        """Return the fields that `<<` brings in; the first of several mappings wins, as YAML says."""
        self._count(node, path)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            result: dict[str, object] = {}
            for child in reversed(node.value):
                result |= self._merged(child, path)
            return result
        raise YamlProblem("`<<` takes a mapping or a list of mappings", _line(node))


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
