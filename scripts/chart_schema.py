"""Writes helm/manta/values.schema.json: the platform's document from its model, the chart's own keys from values.yaml.

python -m scripts.chart_schema           rewrite the file
python -m scripts.chart_schema --check   exit with 1 when the file is out of date
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from scripts.chart_values import CHART, Value, documented, leaves
from scripts.generated import settle
from serve_app.config import PlatformConfig
from serve_app.config_auth import KEY_HASH

FILE = CHART / "values.schema.json"
COMMAND = "python -m scripts.chart_schema"
RULES = Path(__file__).with_name("chart_schema_rules.yaml")
Json = dict[str, Any]
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def schema() -> Json:
    """Return the whole schema."""
    written = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    platform = _simple(PlatformConfig.model_json_schema())
    root: Json = {"type": "object", "properties": {}, "additionalProperties": False}
    values = documented()
    plain = {value.path for value in leaves(values)}
    for value in values:
        if value.path[0] == "platform":
            continue
        _place(root, value, _of_leaf(value, written["rules"]) if value.path in plain else _section())
    definitions = {**platform.pop("$defs"), **written["$defs"]}
    root["properties"]["platform"] = {**platform, "description": values_description(values, "platform")}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the Manta chart",
        **root,
        "$defs": definitions,
    }


def values_description(values: list[Value], name: str) -> str:
    """Return what values.yaml says of a key."""
    return next(value.description for value in values if value.name == name)


def _section() -> Json:
    return {"type": "object", "properties": {}, "additionalProperties": False}


def _place(root: Json, value: Value, made: Json) -> None:
    at = root
    for part in value.path[:-1]:
        at = at["properties"][part]
    at["properties"][value.path[-1]] = {"description": value.description, **made}


def _of_leaf(value: Value, rules: dict[str, Json]) -> Json:
    """Return the rule whose name fits most of the path, else what the default's type says."""
    endings = (".".join(value.path[i:]) for i in range(len(value.path)))
    if (rule := next((rules[ending] for ending in endings if ending in rules), None)) is not None:
        return rule
    kind = _TYPES.get(type(value.default))
    if kind is None:
        raise ValueError(f"{value.name} is a list or an object: chart_schema_rules.yaml must say what is in it")
    return {"type": kind, "minimum": 0} if kind in ("integer", "number") else {"type": kind}


def _simple(node: Any) -> Any:
    """Return a schema in which an error has one line: no `null` beside a type, and no choice between types."""
    if isinstance(node, list):
        return [_simple(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: _properties(part) if key in ("properties", "$defs") else _simple(part) for key, part in node.items()}
    made.pop("default", None)  # many are whole sections, which the model fills in
    if isinstance(made.get("title"), str):
        made.pop("title")
    if made.get("pattern") == KEY_HASH:  # Helm would repeat what was written, which may be the key: a template checks it
        made.pop("pattern")
    return _flat(made)


def _properties(part: Json) -> Json:
    return {name: _simple(each) for name, each in part.items()}


def _flat(made: Json) -> Json:
    options = [each for each in made.get("anyOf", ()) if each != {"type": "null"}]
    if not options:
        return made
    rest = {key: part for key, part in made.items() if key != "anyOf"}
    if len(options) == 1:
        return {**options[0], **rest}
    kinds = [option.get("type") for option in options]
    if all(isinstance(kind, str) for kind in kinds):  # a duration: a number, or text with a pattern
        merged: Json = {}
        for option in options:
            merged |= option
        return {**merged, **rest, "type": kinds}
    return {**rest, "anyOf": options}


def main(arguments: list[str]) -> int:
    """Write the file, or compare it; return the exit code."""
    return settle(FILE, json.dumps(schema(), indent=1) + "\n", command=COMMAND, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
