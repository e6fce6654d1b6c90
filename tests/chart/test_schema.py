"""values.schema.json refuses every wrong type and every unknown key, in words that name the key."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from helm_python import HelmValuesError

from scripts import chart_schema
from scripts.chart_values import CHART, defaults, documented
from serve_app import cluster
from tests.chart.helm import CI_FILES, Json, chart, ci_values, merged

pytestmark = pytest.mark.chart

SCHEMA: Json = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
Path = tuple[str | int, ...]
# Kubernetes' own, checked by its API: bodies of affinities and volumes, whole objects; and what vLLM takes beside our fields.
OPEN = {
    "$defs.Affinity.nodeAffinity",
    "$defs.Affinity.podAffinity",
    "$defs.Affinity.podAntiAffinity",
    "$defs.Volumes.items",
    "$defs.VolumeMounts.items",
    "$defs.Objects.items",
    "$defs.PodSecurity.seLinuxOptions",
    "$defs.PodSecurity.sysctls.items",
    "$defs.ContainerSecurity.seLinuxOptions",
    "$defs.EngineConfig.engine_args",
}


def parts(data: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value of a document with its path."""
    yield path, data
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, each in items:
        yield from parts(each, (*path, key))


def changed(data: Json, path: Path, value: Any) -> Json:
    made = copy.deepcopy(data)
    at: Any = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return made


def wrong(value: Any) -> Any:
    """Return a value of a type that nothing like this one may have."""
    return {"of": ["another", "type"]} if not isinstance(value, dict) else ["another type"]


def is_free(path: Path) -> bool:
    """Whether the key lies inside what Kubernetes or vLLM check."""
    return any(key in path for key in ("affinity", "volumes", "volumeMounts", "extraObjects", "engine_args"))


DOCUMENTS: dict[str, Json] = {
    "defaults": defaults(),
    **{file.name.removesuffix("-values.yaml"): ci_values(file) for file in CI_FILES},
}


def refused(values: Json) -> str:
    try:
        chart().validate_schema(values)
    except HelmValuesError as err:
        return str(err)
    return ""


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_value_of_another_type_is_refused(name: str, record_property: Any) -> None:
    values = DOCUMENTS[name]
    mutations = [
        (path, changed(values, path, wrong(value))) for path, value in parts(values) if path and not is_free(path[:-1])
    ]
    record_property("mutations", len(mutations))
    assert [path for path, mutated in mutations if not refused(mutated)] == []
    assert len(mutations) > 10


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_unknown_key_is_refused_by_its_name(name: str, record_property: Any) -> None:
    values = DOCUMENTS[name]
    places = [path for path, value in parts(values) if isinstance(value, dict) and not is_free(path)]
    mutations = [changed(values, (*path, "wieght"), {"of": 1}) for path in places]
    record_property("mutations", len(mutations))
    assert [path for path, mutated in zip(places, mutations, strict=True) if "wieght" not in refused(mutated)] == []
    assert len(mutations) > 3


def test_only_what_others_check_is_open() -> None:
    found = set()
    for path, node in parts(SCHEMA):
        is_object = isinstance(node, dict) and "object" in (
            [kinds] if isinstance(kinds := node.get("type"), str) else kinds or ()
        )
        if is_object and node.get("additionalProperties", True) in (True, {}):
            found.add(".".join(str(part) for part in path if part not in ("properties", "allOf")))
    assert found <= OPEN
    assert SCHEMA["$defs"]["EngineConfig"]["properties"]["engine_args"]["additionalProperties"] == {"$ref": "#/$defs/JsonValue"}


def test_every_field_of_the_platform_is_described() -> None:
    sections = [SCHEMA["properties"]["platform"], *(d for d in SCHEMA["$defs"].values() if d.get("description"))]
    fields = [(name, field) for section in sections for name, field in section.get("properties", {}).items()]
    # What stands behind a $ref has its words there.
    assert [name for name, field in fields if "description" not in field and "$ref" not in field] == []


def test_the_schema_is_a_schema_and_offers_no_choices() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert [path for path, _ in parts(SCHEMA) if path and path[-1] in ("anyOf", "oneOf")] == []


def test_the_file_is_what_the_script_writes() -> None:
    assert chart_schema.main(["--check"]) == 0


def test_every_key_of_the_values_is_in_the_schema() -> None:
    for value in documented():
        node = SCHEMA
        for key in value.path:
            node = node["properties"][key]
            node = SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[1]] if set(node) == {"$ref"} else node


def test_every_key_of_the_values_is_described() -> None:
    described = {value.path for value in documented()}
    inside = {path for path in described if any(other[: len(path)] == path for other in described - {path})}
    keys = [p for p, _ in parts(defaults()) if p and p[0] != "platform" and all(isinstance(k, str) for k in p)]
    assert [path for path in keys if (path[:-1] in inside or len(path) == 1) and path not in described] == []


def test_a_default_can_be_removed_with_null() -> None:
    values = merged({"platform": {"auth": {"keys_file": None, "allow_anonymous": True}}})
    assert values["platform"]["auth"] == {"allow_anonymous": True}


def test_the_proxys_clients_are_no_more_than_a_pods_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = SCHEMA["properties"]["proxy"]["properties"]["maxConnections"]
    monkeypatch.setattr(cluster, "MOST_CONNECTIONS", 1_000_000)
    assert 0 <= cluster.most_connections(65_536) - rule["maximum"] < 1_000  # KubeRay starts Ray after `ulimit -n 65536`
    assert "65,536" in rule["description"]
    assert "maximum: got 40,000, want 26,000" in refused({"proxy": {"maxConnections": 40_000}})


def test_globals_of_a_parent_chart_are_known() -> None:
    assert refused({"global": {"imageRegistry": "r.example.org", "imagePullSecrets": ["s"]}}) == ""


def test_rules_that_no_value_uses_are_not_kept() -> None:
    rules = yaml.safe_load(chart_schema.RULES.read_text(encoding="utf-8"))["rules"]
    names = [value.name for value in documented()]
    assert [rule for rule in rules if not any(f".{name}".endswith(f".{rule}") for name in names)] == []
