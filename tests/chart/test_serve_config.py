"""serveConfigV2 is what `manta render` prints for the same platform.

Both are read by the models that will read them on the cluster before they are compared: Python writes `10m` as 600.0 seconds
and fills the paths of files in, and the template leaves what was written as it is.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from deployments.declared import declared
from serve_app.commands import render
from serve_app.config import (
    EmbedderConfig,
    PlatformConfig,
    RetrieverConfig,
    VariantConfig,
    VectorStoreConfig,
    VectorStoresConfig,
)
from serve_app.loading import resolve
from tests.chart.helm import CI_FILES, Json, ci_values, merged, serve_config

pytestmark = [pytest.mark.chart, pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")]

PARTS: dict[tuple[str, str], type[BaseModel]] = {
    ("llm", "config"): VariantConfig,
    ("embedder", "config"): EmbedderConfig,
    ("retriever", "config"): RetrieverConfig,
    ("retriever", "store"): VectorStoreConfig,
    ("documents", "config"): VectorStoresConfig,
    ("documents", "store"): VectorStoreConfig,
}


def read(config: Json) -> Json:
    """Return a configuration as its readers see it."""
    made = copy.deepcopy(config)
    for app in made["applications"]:
        kind = app["name"].split(".")[0]
        for key, model in PARTS.items():
            if key[0] == kind:
                app["args"][key[1]] = model.model_validate(app["args"][key[1]])
        if kind == "rollouts":
            user_config = app["deployments"][0]["user_config"]
            user_config["platform"] = platform(user_config["platform"])
    return made


def platform(document: Any) -> PlatformConfig:
    found = resolve(PlatformConfig.model_validate(document), Path("/"), check_files=False)
    # Where nothing is searched, the store is not written, and its default is a relative path that each makes absolute.
    is_used = found.pipelines or found.vector_stores
    return found if is_used else found.model_copy(update={"vector_store": VectorStoreConfig()})


def rendered(values: Json, folder: Path, capsys: pytest.CaptureFixture[str]) -> Json:
    """Return what `manta render` prints."""
    values = merged(values)
    file = folder / "platform.yaml"
    file.write_text(yaml.safe_dump(values["platform"]), encoding="utf-8")
    render.run(file, check_files=False, http_port=values["ports"]["http"], grpc_port=values["ports"]["grpc"])
    found: Json = yaml.safe_load(capsys.readouterr().out)
    return found


APART: Json = {"replicas": 2, "max_replicas_per_node": 1}
SPREAD: Json = {
    "platform": {
        "models": [{"name": "chat", "variants": [{"name": "stable", "source": "org/model", **APART}]}],
        "embedders": [{"name": "minilm", "source": "org/minilm", **APART}],
        "vector_store": {"uri": "s3://collections/lance"},
        "vector_stores": {"embedder": "minilm"},
        "retriever": APART,
        "router": APART,
    }
}
# An empty section is one with its defaults.
SCALED: Json = {
    "platform": {
        "models": [{"name": "chat", "variants": [{"name": "stable", "source": "org/m", "replicas": 0, "autoscaling": {}}]}],
        "router": {"autoscaling": {}},
    }
}
VALUES = {
    "defaults": {},
    "spread": SPREAD,
    "scaled": SCALED,
    **{file.name.removesuffix("-values.yaml"): ci_values(file) for file in CI_FILES},
}


@pytest.mark.parametrize("name", VALUES)
def test_the_chart_renders_what_manta_does(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(serve_config(VALUES[name])) == read(rendered(VALUES[name], tmp_path, capsys))


@pytest.mark.parametrize("name", VALUES)
def test_ray_accepts_it(name: str) -> None:
    config = serve_config(VALUES[name])
    accepted = ServeDeploySchema.model_validate(config)
    assert [app.name for app in accepted.applications] == [app["name"] for app in config["applications"]]


@pytest.mark.parametrize("name", VALUES)
def test_rollouts_accepts_it(name: str) -> None:
    app = next(app for app in serve_config(VALUES[name])["applications"] if app["name"] == "rollouts")
    made = declared(app["deployments"][0]["user_config"])
    assert [model.name for model in made.routing.models] == [
        model["name"] for model in merged(VALUES[name])["platform"]["models"]
    ]


def weighted(stable: int) -> Json:
    values = copy.deepcopy(VALUES["canary"])
    variants = values["platform"]["models"][0]["variants"]
    variants[0]["weight"], variants[1]["weight"] = stable, 100 - stable
    return values


def test_a_weight_changes_the_user_config_of_rollouts_and_nothing_else() -> None:
    before, after = serve_config(weighted(90)), serve_config(weighted(80))
    changed = [a["name"] for a, b in zip(before["applications"], after["applications"], strict=True) if a != b]
    for config in (before, after):
        del config["applications"][0]["deployments"][0]["user_config"]
    assert (changed, before) == (["rollouts"], after)


def test_there_is_no_grpc_where_it_is_switched_off() -> None:
    assert "grpc_options" not in serve_config({"platform": {"router": {"grpc": False}}})


def test_large_numbers_stay_whole() -> None:
    config = serve_config(VALUES["keys-and-limits"])
    document = config["applications"][0]["deployments"][0]["user_config"]["platform"]
    assert document["limits"]["max_body_bytes"] == 104857600
    router = config["applications"][-1]["deployments"][0]["ray_actor_options"]["runtime_env"]["env_vars"]
    assert router["RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"] == "105906176"


def test_every_part_that_is_to_be_spread_is() -> None:
    deployments = [deployment for app in serve_config(SPREAD)["applications"] for deployment in app["deployments"]]
    spread = {each["name"] for each in deployments if each.get("max_replicas_per_node") == 1}
    assert spread == {"LLM", "Embedder", "Retriever", "Router"}
