"""Adapters in the configuration: how they are written, what they need, and who may name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serve_app.config import AdapterConfig, PlatformConfig
from serve_app.config_error import ConfigError
from serve_app.config_rules import PlacedError
from serve_app.loading import load_platform, parse_platform, resolve

LORA: dict[str, Any] = {"lora": {}}
LEGAL: dict[str, Any] = {"name": "legal", "source": "s3://adapters/legal"}
VERSIONS = [{"name": "v1", "source": "org/one", "weight": 90}, {"name": "v2", "source": "org/two", "weight": 10}]
KEY = {"name": "team", "hash": f"sha256:{'0' * 32}:{'0' * 64}"}
VERSION = {"name": "v1", "embedder": "minilm", "collection": "docs", "prompt": "{{ question }}", "model": "chat:legal"}


def variant(name: str = "stable", *, weight: int = 100, engine: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "source": "org/model", "weight": weight, "engine": LORA if engine is None else engine, **more}


def document(*variants: dict[str, Any], adapters: tuple[dict[str, Any], ...] = (LEGAL,), **more: Any) -> dict[str, Any]:
    model = {"name": "chat", "variants": list(variants) or [variant()], "adapters": list(adapters)}
    return {"models": [{**model, **more.pop("model", {})}], **more}


def problems(config: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    """Return the broken rules, relative to the part that checked them."""
    with pytest.raises(ValueError, match=r".") as caught:
        PlatformConfig.model_validate(config)
    errors = [error["ctx"]["error"] for error in caught.value.errors()]  # type: ignore[attr-defined]
    return [problem for error in errors if isinstance(error, PlacedError) for problem in error.problems]


def test_a_source_alone_is_one_version_with_all_traffic() -> None:
    [version] = AdapterConfig.model_validate(LEGAL).served
    assert (version.name, version.source, version.weight) == ("v1", "s3://adapters/legal", 100)


def test_versions_share_the_traffic_in_the_declared_order() -> None:
    made = AdapterConfig.model_validate({"name": "legal", "versions": VERSIONS})
    assert [(v.name, v.weight) for v in made.served] == [("v1", 90), ("v2", 10)]


@pytest.mark.parametrize(
    ("adapter", "path", "message"),
    [
        pytest.param({"name": "a"}, ("source",), "has no weights; write `source`, or `versions`", id="no-weights"),
        pytest.param({**LEGAL, "versions": VERSIONS}, ("source",), "has both `source` and `versions`", id="both"),
        pytest.param({"name": "a", "versions": VERSIONS[:1]}, ("versions",), "must sum to 100, got 90", id="weights"),
        pytest.param(
            {"name": "a", "versions": VERSIONS, "rollout": {"variant": "v3", "baseline": "v1", "steps": [{"weight": 5}]}},
            ("rollout", "variant"),
            "version 'v3' is not declared",
            id="rollout",
        ),
    ],
)
def test_an_adapter_that_cannot_be_is_refused(adapter: dict[str, Any], path: tuple[str, ...], message: str) -> None:
    [(found, text)] = problems(document(adapters=(adapter,)))
    assert (found, message in text) == (path, True)


def test_names_of_a_models_adapters_differ() -> None:
    assert problems(document(adapters=(LEGAL, LEGAL))) == [
        (("adapters", 1, "name"), "adapter names must be unique, 'legal' is used more than once")
    ]


def test_two_models_may_have_adapters_of_the_same_name() -> None:
    config = document()
    config["models"].append({**config["models"][0], "name": "code"})
    assert [m.adapters[0].name for m in PlatformConfig.model_validate(config).models] == ["legal", "legal"]


ROOMLESS = variant("canary", weight=0, engine={})


@pytest.mark.parametrize(
    ("variants", "model", "at"),
    [
        pytest.param((variant(engine={}),), {}, 0, id="all-traffic"),
        pytest.param((variant(), ROOMLESS), {"rollout": {"steps": [{"weight": 5}]}}, 1, id="canary-of-a-rollout"),
        pytest.param((variant(), ROOMLESS), {"shadow": {"variant": "canary", "percent": 5}}, 1, id="shadow"),
    ],
)
def test_variants_that_get_an_adapters_requests_need_room_for_it(variants: Any, model: dict[str, Any], at: int) -> None:
    [(path, message)] = problems(document(*variants, model=model))
    assert path == ("variants", at, "engine", "lora")
    assert message == "model 'chat' has adapters, and this variant would get their requests; add `engine.lora: {}`"


def test_a_variant_without_traffic_needs_no_room() -> None:
    PlatformConfig.model_validate(document(variant(), ROOMLESS))


def test_the_missing_room_is_told_with_its_line() -> None:
    text = """
models:
  - name: chat
    variants:
      - {name: stable, source: org/model}
    adapters:
      - {name: legal, source: org/adapter}
"""
    with pytest.raises(ConfigError) as caught:
        parse_platform(text, name="p.yaml")
    assert str(caught.value).startswith("p.yaml:5: models[0].variants[0].engine.lora: model 'chat' has adapters")


def test_a_key_may_name_adapters_exactly() -> None:
    auth = {"keys": [{**KEY, "models": ["chat:legal"]}]}
    assert PlatformConfig.model_validate(document(auth=auth)).auth.keys[0].models == ("chat:legal",)


def test_a_key_with_an_adapter_that_is_not_declared_is_refused() -> None:
    [(path, message)] = problems(document(auth={"keys": [{**KEY, "models": ["chat:leagl"]}]}))
    assert (path, message) == (("auth", "keys", 0, "models", 0), "'chat:leagl' is not declared, did you mean `chat:legal`?")


@pytest.mark.parametrize("name", ["chat:", ":legal", "chat:legal:v1", "Chat:legal"])
def test_what_is_no_public_name_is_refused(name: str) -> None:
    text = "auth: {keys: [{name: team, hash: 'sha256:%s:%s', models: ['%s']}]}" % ("0" * 32, "0" * 64, name)  # noqa: UP031
    with pytest.raises(ConfigError, match="or MODEL:ADAPTER, got"):
        parse_platform(text, name="p.yaml")


def pipeline(**version: Any) -> dict[str, Any]:
    return {
        "embedders": [{"name": "minilm", "source": "org/embedder"}],
        "pipelines": [{"name": "docs", "versions": [{**VERSION, **version}]}],
    }


def test_a_pipeline_may_answer_by_an_adapter() -> None:
    config = PlatformConfig.model_validate(document(**pipeline(condense={"model": "chat:legal"})))
    assert config.pipelines[0].versions[0].model == "chat:legal"


def test_a_pipeline_names_adapters_that_there_are() -> None:
    [(path, message)] = problems(document(**pipeline(model="chat:lega")))
    assert path == ("pipelines", 0, "versions", 0, "model")
    assert message == "model 'chat:lega' is not declared, did you mean `chat:legal`?"


def test_a_pipeline_pins_a_variant_with_room_for_the_adapter() -> None:
    [(path, message)] = problems(document(variant(), ROOMLESS, **pipeline(variant="canary")))
    assert path == ("pipelines", 0, "versions", 0, "variant")
    assert message == "variant 'canary' of 'chat' takes no adapters; add `engine.lora: {}` to it"


def test_a_pinned_variant_is_one_of_the_adapters_model() -> None:
    [(path, message)] = problems(document(**pipeline(variant="stabel")))
    assert path == ("pipelines", 0, "versions", 0, "variant")
    assert message == "model 'chat:legal' has no variant 'stabel', did you mean `stable`?"


def written(folder: Path, adapter: str, *, kind: str = "vllm") -> Path:
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text("{}")
    engine = f"{{kind: {kind}, lora: {{}}}}"
    text = f"models: [{{name: chat, variants: [{{name: stable, source: ./model, engine: {engine}}}], adapters: [{adapter}]}}]"
    (folder / "platform.yaml").write_text(text)
    return folder / "platform.yaml"


def test_folders_of_adapters_become_absolute(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
    versions = "versions: [{name: v1, source: ./one, weight: 50}, {name: v2, source: ./two, weight: 50}]"
    config = load_platform(written(tmp_path, f"{{name: a, source: ./one}}, {{name: b, {versions}}}"))
    sources = [version.source for adapter in config.models[0].adapters for version in adapter.served]
    assert sources == [str(tmp_path / name) for name in ("one", "one", "two")]
    assert resolve(config, Path("/elsewhere"), check_files=False) == config


@pytest.mark.parametrize(("exists", "message"), [(False, "does not exist"), (True, "has no adapter_config.json")])
def test_a_folder_that_is_no_adapter_is_told(tmp_path: Path, exists: bool, message: str) -> None:
    file = written(tmp_path, "{name: a, source: ./one}")
    if exists:
        (tmp_path / "one").mkdir()
    with pytest.raises(ConfigError, match=f"adapters.0..source: the adapter folder .* {message}; name the folder"):
        load_platform(file)
    assert load_platform(file, check_files=False).models[0].adapters[0].source == str(tmp_path / "one")


def test_to_a_simulated_engine_an_adapters_folder_is_only_a_label(tmp_path: Path) -> None:
    config = load_platform(written(tmp_path, "{name: a, source: ./nowhere}", kind="simulated"))
    assert config.models[0].adapters[0].source == str(tmp_path / "nowhere")
