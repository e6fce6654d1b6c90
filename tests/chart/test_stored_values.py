"""Nulls in values, and values that Helm has stored and reads again: `helm upgrade --reuse-values` keeps a `null` as a value."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helm_python import Chart, Config

from scripts.chart_effects import Effect, effect
from serve_app.config import PlatformConfig
from tests.chart.cluster.api_server import ApiServer
from tests.chart.cluster.kinds import KINDS
from tests.chart.cluster.targets import kubeconfig
from tests.chart.helm import CHART, CI_FILES, NAMESPACE, RELEASE, Json, ci_values, objects, refusal, serve_config
from tests.chart.test_serve_config import read, rendered

pytestmark = [pytest.mark.chart, pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")]

MODEL: Json = PlatformConfig.model_json_schema()
SCHEMA: Json = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
OPEN: Json = {
    "platform": {"auth": {"keys_file": None, "allow_anonymous": True}},
    "apiKeys": {"existingSecret": ""},
    "tests": {"apiKey": {"existingSecret": ""}},
}
STABLE: Json = {
    "name": "stable",
    "source": "org/m",
    "accelerator": None,
    "autoscaling": None,
    "engine": {"max_model_len": None},
}
STORED: dict[str, Json] = {
    "no-keys": OPEN,
    "no-users": {**OPEN, "pod": {"securityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}},
    "in-a-list": {**OPEN, "platform": {**OPEN["platform"], "models": [{"name": "chat", "shadow": None, "variants": [STABLE]}]}},
}


@pytest.fixture(scope="module")
def config() -> Iterator[Config]:
    """Helm before an API server that stores what it is sent, and nothing else."""
    with ApiServer() as api, Config(kubeconfig_content=kubeconfig(api.url), namespace=NAMESPACE) as found:
        yield found


@pytest.mark.parametrize("name", STORED)
def test_stored_values_with_nulls_are_read_again(config: Config, name: str) -> None:
    chart = Chart.load(CHART)  # not the one that tests share: with `reuse_values` Helm writes its defaults anew
    config.install(chart, name, STORED[name])
    try:
        upgraded = config.upgrade(chart, name, {"ports": {"http": 8088}}, reuse_values=True)
        assert upgraded["status"] == "deployed"
        assert config.get_values(name) == {**STORED[name], "ports": {"http": 8088}}
    finally:
        config.uninstall(name)


def test_an_uninstalled_release_leaves_nothing_behind() -> None:
    with ApiServer() as api, Config(kubeconfig_content=kubeconfig(api.url), namespace=NAMESPACE) as config:
        config.install(Chart.load(CHART), RELEASE, {})
        assert any(api.store.objects(kind) for kind in KINDS)
        config.uninstall(RELEASE)
        assert [kind.name for kind in KINDS if api.store.objects(kind)] == []


def test_a_null_in_a_pod_builds_no_second_cluster() -> None:
    # What `--reuse-values` makes of a null: it is rendered, and the API server leaves it out.
    before, after = (objects(STORED["no-users"]) for _ in range(2))
    (service,) = (each for each in after if each["kind"] == "RayService")
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["securityContext"]["runAsUser"] = None
    assert before != after
    assert effect(before, after) == Effect()


def nullable(model: Json) -> set[str]:
    """Return the fields of a section that may be null."""
    return {name for name, field in model.get("properties", {}).items() if {"type": "null"} in field.get("anyOf", ())}


def target(schema: Json, node: Json) -> Json:
    return schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def test_values_may_be_null_where_the_documents_fields_may() -> None:
    sections = {"": (MODEL, SCHEMA["properties"]["platform"])}
    sections |= {name: (section, SCHEMA["$defs"][name]) for name, section in MODEL["$defs"].items()}
    fields = [(name, field) for name, (model, _) in sections.items() for field in nullable(model)]
    closed = [
        (name, field) for name, field in fields if "null" not in target(SCHEMA, sections[name][1]["properties"][field])["type"]
    ]
    assert (closed, len(fields) > 60) == ([], True)


def test_other_fields_of_the_document_may_not_be_null() -> None:
    variant = {"name": "stable", "source": "org/m", "weight": None}
    message = refusal({"platform": {"models": [{"name": "chat", "variants": [variant]}]}})
    assert "at '/platform/models/0/variants/0/weight': got null, want integer" in message


def with_nulls(data: Any, model: Json) -> Any:
    """Return a document with a null for every field that may have one and is not written."""
    if isinstance(data, list):
        return [with_nulls(each, item(model)) for each in data]
    if not isinstance(data, dict):
        return data
    fields = model.get("properties", {})
    made = {key: with_nulls(part, item(fields[key], at="")) if key in fields else part for key, part in data.items()}
    return {**made, **dict.fromkeys(nullable(model) - data.keys())}


def item(field: Json, at: str = "items") -> Json:
    """Return the section that a field holds, or its entries."""
    options = [field.get(at, {}) if at else field, *field.get("anyOf", ())]
    found = [target(MODEL, each) for each in options]
    return next((each for each in found if each.get("properties")), field)


@pytest.mark.parametrize("file", CI_FILES, ids=lambda file: file.stem)
def test_nulls_change_nothing_that_serve_is_told(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = copy.deepcopy(ci_values(file))
    values["platform"] = with_nulls(values["platform"], MODEL)
    assert "None" in str(values)
    assert refusal(values) == ""
    assert read(serve_config(values)) == read(rendered(values, tmp_path, capsys))
