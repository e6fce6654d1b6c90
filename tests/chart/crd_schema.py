"""Checks objects against CRDs as the API server does: nulls pruned, defaults applied, unknown fields refused."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

CRDS = Path(__file__).parent / "crds"
Json = dict[str, Any]
_INT_OR_STRING, _PRESERVE = "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"


def problems(manifest: Json) -> list[str]:
    """Return what an API server would say of an object of these CRDs."""
    schema = schemas()[manifest["apiVersion"], manifest["kind"]]
    prepared = _prepared(manifest, schema)
    found = jsonschema.Draft7Validator(_json_schema(schema)).iter_errors(prepared)
    wrong = [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in found]
    return wrong + [f"{'.'.join(path)}: {problem}" for path, problem in _doubles(prepared, schema, ())]


def _doubles(value: Any, schema: Json, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (path, problem) of every list with two entries of the same keys, where the API takes one."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _doubles(each, schema.get("properties", {}).get(name, {}), (*path, name))
    if isinstance(value, list):
        names = schema.get("x-kubernetes-list-map-keys", [])
        keys = [tuple(each.get(name) for name in names) for each in value] if names else []
        for key, count in Counter(keys).items():
            if count > 1:
                yield path, f"two entries with {', '.join(names)} {', '.join(map(str, key))}"
        for i, each in enumerate(value):
            yield from _doubles(each, schema.get("items", {}), (*path, str(i)))


@functools.cache
def schemas() -> dict[tuple[str, str], Json]:
    """Return the schema of every (apiVersion, kind) that there is a CRD for."""
    found = {}
    for file in sorted(CRDS.glob("*.json")):
        spec = json.loads(file.read_text(encoding="utf-8"))["spec"]
        for version in spec["versions"]:
            api = f"{spec['group']}/{version['name']}"
            found[api, spec["names"]["kind"]] = _with_metadata(version["schema"]["openAPIV3Schema"])
    return found


def _with_metadata(schema: Json) -> Json:
    metadata = {"type": "object", _PRESERVE: True}
    return {**schema, "properties": {**schema["properties"], "metadata": metadata}}


def _json_schema(node: Json) -> Json:
    if node.get(_INT_OR_STRING):
        return {"type": ["integer", "string"], **({"pattern": node["pattern"]} if "pattern" in node else {})}
    made = {k: v for k, v in node.items() if not k.startswith("x-") and k not in ("default", "nullable", "format", "items")}
    if "properties" in node:
        made["properties"] = {name: _json_schema(each) for name, each in node["properties"].items()}
        if not node.get(_PRESERVE) and "additionalProperties" not in node:
            made["additionalProperties"] = False
    if isinstance(node.get("additionalProperties"), dict):
        made["additionalProperties"] = _json_schema(node["additionalProperties"])
    if "items" in node:
        made["items"] = _json_schema(node["items"])
    if node.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made


def _prepared(value: Any, schema: Json) -> Any:
    """Return a value without nulls where there may be none, and with the schema's defaults."""
    if isinstance(value, list):
        return [_prepared(each, schema.get("items", {})) for each in value]
    if not isinstance(value, dict):
        return value
    fields: Json = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    other: Json = rest if isinstance(rest, dict) else {}
    kept = {k: v for k, v in value.items() if v is not None or fields.get(k, other).get("nullable")}
    defaults = {k: f["default"] for k, f in fields.items() if "default" in f and k not in kept}
    return {k: _prepared(v, fields.get(k, other)) for k, v in {**kept, **defaults}.items()}
