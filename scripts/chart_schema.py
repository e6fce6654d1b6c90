"""Writes helm/manta/values.schema.json: the platform's document and load tests from their models, the rest from values.yaml.

python -m scripts.chart_schema           rewrite the file
python -m scripts.chart_schema --check   exit with 1 when the file is out of date
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from loadtests.gates_config import Gates
from loadtests.scenario import Scenario
from scripts.chart_values import CHART, Value, documented, leaves
from scripts.generated import settle
from serve_app.config import PlatformConfig
from serve_app.config_auth import KEY_HASH

FILE = CHART / "values.schema.json"
COMMAND = "python -m scripts.chart_schema"
RULES = Path(__file__).with_name("chart_schema_rules.yaml")
Json = dict[str, Any]
_NULLABLE = "may be null"  # beside a $ref, until the section that it names is known
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
    scenario, gates = _load_test(Scenario), _load_test(Gates)
    for field in ("required", "name", "target"):  # the chart adds both; and nothing at all means a bundled scenario
        (scenario if field == "required" else scenario["properties"]).pop(field)
    definitions = {**_with_nulls(platform), **written["$defs"], **scenario.pop("$defs"), **gates.pop("$defs")}
    definitions |= {"LoadTestScenario": scenario, "LoadTestGates": gates}
    root["properties"]["platform"] = {**platform, "description": values_description(values, "platform")}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the Manta chart",
        **root,
        "$defs": definitions,
    }


def _load_test(model: type[BaseModel]) -> Json:
    """Return the schema of a load test's file; its definitions have names that none of the platform's has."""
    made = _simple(model.model_json_schema())
    definitions = _with_nulls(made)
    text = json.dumps({**made, "$defs": {f"LoadTest.{name}": each for name, each in definitions.items()}})
    renamed: Json = json.loads(text.replace('"#/$defs/', '"#/$defs/LoadTest.'))
    return renamed


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


def _with_nulls(platform: Json) -> Json:
    """Take the definitions out of the document's schema, and return them; a section that may be null everywhere says so itself.

    Raises:
        ValueError: a section may be null in one place only: it cannot be said without a choice, whose errors have many lines.
    """
    definitions: Json = platform.pop("$defs")
    nullable, plain = _references([platform, definitions])
    if nullable & plain:
        raise ValueError(f"{sorted(nullable & plain)} may be null here and not there; make two models of each, or one rule")
    for name in nullable:
        definitions[name]["type"] = [definitions[name]["type"], "null"]
    return definitions


def _references(node: Any) -> tuple[set[str], set[str]]:
    """Return the sections that may be null where they are named, and those that may not; take the marks of the former away."""
    nullable: set[str] = set()
    plain: set[str] = set()
    if isinstance(node, dict) and isinstance(node.get("$ref"), str):
        (nullable if node.pop(_NULLABLE, False) else plain).add(node["$ref"].rsplit("/", 1)[1])
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        below = _references(part)
        nullable |= below[0]
        plain |= below[1]
    return nullable, plain


def _simple(node: Any) -> Any:
    """Return a schema in which an error has one line: no choice between types. What the model lets be null, may be null."""
    if isinstance(node, list):
        return [_simple(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: _properties(part) if key in ("properties", "$defs") else _simple(part) for key, part in node.items()}
    made.pop("default", None)  # many are whole sections, which the model fills in
    if isinstance(made.get("title"), str):
        made.pop("title")
    if "patternProperties" in made:  # a name that fits no pattern is refused
        made["additionalProperties"] = False
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
    is_nullable = len(options) < len(made["anyOf"])
    if len(options) == 1 and "$ref" in options[0]:
        return {**options[0], **rest, **({_NULLABLE: True} if is_nullable else {})}
    kinds = [option.get("type") for option in options]
    if not all(isinstance(kind, str) for kind in kinds):
        return {**rest, "anyOf": made["anyOf"]}
    merged: Json = {}  # a duration: a number, or text with a pattern
    for option in options:
        merged |= option
    kinds += ["null"] if is_nullable else []
    if is_nullable and "enum" in merged:
        merged["enum"] = [*merged["enum"], None]
    return {**merged, **rest, "type": kinds if len(kinds) > 1 else kinds[0]}


def main(arguments: list[str]) -> int:
    """Write the file, or compare it; return the exit code."""
    return settle(FILE, json.dumps(schema(), indent=1) + "\n", command=COMMAND, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
