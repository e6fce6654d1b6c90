"""What a PlatformConfig accepts, whatever file it came from."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from serve_app.config import EngineConfig, ModelConfig, PlatformConfig, SourceKind, VariantConfig, source_kind
from serve_app.config_error import section_of

FULL: dict[str, Any] = {
    "models": [
        {
            "name": "chat",
            "priority": 9,
            "variants": [
                {
                    "name": "stable",
                    "source": "org/model",
                    "accelerator": "L40S",
                    "engine": {
                        "simulated": {"slots": 2, "faults": {"error_ratio": 0.5}},
                        "health": {"probe_interval_s": 30},
                        "lora": {"max_loras": 2},
                        "structured_outputs": {"backend": "guidance"},
                        "speculative": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4},
                    },
                    "autoscaling": {"min_replicas": 0, "max_replicas": 2},
                },
                {"name": "canary", "source": "org/other", "weight": 0, "engine": {"lora": {}}},
            ],
            "adapters": [
                {
                    "name": "legal",
                    "versions": [{"name": "v1", "source": "org/one"}, {"name": "v2", "source": "org/two", "weight": 0}],
                    "rollout": {
                        "variant": "v2",
                        "baseline": "v1",
                        "steps": [{"weight": 5}],
                        "gates": {"load_test": {"scenario": "smoke"}},
                    },
                }
            ],
            "rollout": {
                "steps": [{"weight": 5, "pause": "10m"}],
                "gates": {"ttft_p95_ratio": 1.5, "load_test": {"scenario": "smoke"}},
            },
            "shadow": {"variant": "canary", "percent": 10},
        }
    ],
    "embedders": [{"name": "minilm", "source": "org/embedder", "autoscaling": {"max_replicas": 2}}],
    "pipelines": [
        {
            "name": "docs",
            "versions": [
                {
                    "name": "v1",
                    "embedder": "minilm",
                    "collection": "docs",
                    "prompt": "{{ question }}",
                    "model": "chat",
                    "condense": {"max_tokens": 32},
                    "overrides": {"max_top_k": 10, "collections": ["others"]},
                },
                {
                    "name": "v2",
                    "weight": 0,
                    "embedder": "minilm",
                    "collection": "docs",
                    "prompt": "{{ question }}",
                    "model": "chat",
                },
            ],
            "rollout": {
                "variant": "v2",
                "baseline": "v1",
                "steps": [{"weight": 5}],
                "gates": {"load_test": {"scenario": "smoke"}},
            },
        }
    ],
    "vector_store": {"kind": "lancedb"},
    "auth": {"keys": [{"name": "team", "hash": f"sha256:{'0' * 32}:{'0' * 64}", "models": ["chat", "docs"]}]},
    "limits": {"max_waiting": 1},
    "router": {
        "replicas": 2,
        "autoscaling": {"min_replicas": 2, "max_replicas": 4},
        "outlier_ejection": {"max_s": 120},
        "retry_budget": {"ratio": 0.1},
    },
    "retriever": {"max_concurrent_searches": 8, "autoscaling": {"max_replicas": 3}},
    "rollouts": {"state_uri": "./data/rollouts"},
    "scaling": {"max_accelerators": 2},
    "logs": {"prompts": True, "mask": ["EMP-[0-9]+"]},
    "accelerators": [{"type": "L40S", "per_node": 2}],
    "tracing": {"enabled": True, "endpoint": "http://otel-collector:4318"},
    "vector_stores": {"embedder": "minilm"},
}
LEVELS = [
    (),
    ("models", 0),
    ("models", 0, "variants", 0),
    ("models", 0, "variants", 0, "engine"),
    ("models", 0, "variants", 0, "engine", "health"),
    ("models", 0, "variants", 0, "engine", "lora"),
    ("models", 0, "variants", 0, "engine", "structured_outputs"),
    ("models", 0, "variants", 0, "engine", "speculative"),
    ("models", 0, "variants", 0, "engine", "simulated"),
    ("models", 0, "variants", 0, "engine", "simulated", "faults"),
    ("models", 0, "variants", 0, "autoscaling"),
    ("models", 0, "rollout"),
    ("models", 0, "rollout", "steps", 0),
    ("models", 0, "rollout", "gates"),
    ("models", 0, "rollout", "gates", "load_test"),
    ("models", 0, "shadow"),
    ("models", 0, "adapters", 0),
    ("models", 0, "adapters", 0, "versions", 0),
    ("models", 0, "adapters", 0, "rollout"),
    ("models", 0, "adapters", 0, "rollout", "steps", 0),
    ("models", 0, "adapters", 0, "rollout", "gates"),
    ("models", 0, "adapters", 0, "rollout", "gates", "load_test"),
    ("embedders", 0),
    ("embedders", 0, "autoscaling"),
    ("pipelines", 0),
    ("pipelines", 0, "versions", 0),
    ("pipelines", 0, "versions", 0, "condense"),
    ("pipelines", 0, "versions", 0, "overrides"),
    ("pipelines", 0, "rollout"),
    ("pipelines", 0, "rollout", "steps", 0),
    ("pipelines", 0, "rollout", "gates"),
    ("pipelines", 0, "rollout", "gates", "load_test"),
    ("vector_store",),
    ("auth",),
    ("auth", "keys", 0),
    ("limits",),
    ("router",),
    ("router", "autoscaling"),
    ("router", "outlier_ejection"),
    ("router", "retry_budget"),
    ("retriever",),
    ("retriever", "autoscaling"),
    ("rollouts",),
    ("scaling",),
    ("logs",),
    ("accelerators", 0),
    ("tracing",),
    ("vector_stores",),
]


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for info in model.model_fields.values():
        if child := section_of(info.annotation):
            yield from sections(child)


def variant(name: str, weight: int) -> VariantConfig:
    return VariantConfig(name=name, source="org/model", weight=weight)


def test_a_document_with_every_section_is_accepted() -> None:
    config = PlatformConfig.model_validate(FULL)
    assert config.models[0].variants[0].engine.simulated.slots == 2
    assert PlatformConfig.model_validate(config.model_dump()) == config
    assert PlatformConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: ".".join(map(str, level)) or "top")
def test_an_unknown_field_is_refused_at_every_level(level: tuple[str | int, ...]) -> None:
    document = deepcopy(FULL)
    section = document
    for part in level:
        section = section[part]  # type: ignore[index]
    section["tpyo"] = 1
    with pytest.raises(ValidationError) as caught:
        PlatformConfig.model_validate(document)
    # Pydantic also calls the list around it too short, for want of one valid item.
    found = [(error["type"], error["loc"]) for error in caught.value.errors() if error["type"] != "too_short"]
    assert found == [("extra_forbidden", (*level, "tpyo"))]


def test_every_level_is_covered_by_the_test_above() -> None:
    assert len(LEVELS) == len(list(sections(PlatformConfig)))


def test_every_field_has_a_description_that_ends_like_a_sentence() -> None:
    fields = [(model.__name__, name, info) for model in sections(PlatformConfig) for name, info in model.model_fields.items()]
    assert [(model, name) for model, name, info in fields if not (info.description or "").endswith(".")] == []


def test_fields_that_are_times_say_so() -> None:
    fields = [(name, info.description) for model in sections(PlatformConfig) for name, info in model.model_fields.items()]
    timed = [(name, text or "") for name, text in fields if name.endswith("_s")]
    assert [name for name, text in timed if "Seconds" not in text and not name.endswith("_per_s")] == []


@pytest.mark.parametrize("model", list(sections(PlatformConfig)), ids=lambda model: model.__name__)
def test_every_section_is_frozen_and_refuses_unknown_fields(model: type[BaseModel]) -> None:
    assert (model.model_config.get("frozen"), model.model_config.get("extra")) == (True, "forbid")


def test_a_configuration_cannot_be_changed() -> None:
    config = PlatformConfig.model_validate(FULL)
    with pytest.raises(ValidationError, match="frozen"):
        config.models[0].variants[0].weight = 5  # type: ignore[misc]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=6))
def test_weights_are_accepted_exactly_when_they_sum_to_100(weights: list[int]) -> None:
    variants = tuple(variant(f"v{i}", weight) for i, weight in enumerate(weights))
    if sum(weights) == 100:
        assert ModelConfig(name="chat", variants=variants).variants == variants
    else:
        with pytest.raises(ValidationError, match=f"sum to 100, got {sum(weights)}"):
            ModelConfig(name="chat", variants=variants)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 100), max_size=5, unique=True))
def test_any_split_of_100_is_accepted(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 100]
    shares = [high - low for low, high in pairwise(edges)]
    model = ModelConfig(name="chat", variants=tuple(variant(f"v{i}", share) for i, share in enumerate(shares)))
    assert [v.weight for v in model.variants] == shares


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("org/model", "hub"),
        ("gpt2", "hub"),
        ("meta-llama/Llama-3.1-8B", "hub"),
        ("./models/x", "folder"),
        ("../x", "folder"),
        ("/x", "folder"),
        ("~/x", "folder"),
        ("s3://my-bucket/a/b", "s3"),
    ],
)
def test_a_source_is_told_apart_by_its_form(source: str, kind: SourceKind) -> None:
    assert source_kind(source) == kind


@pytest.mark.parametrize("source", ["", "a/b/c", "s3://", "s3://UPPER/x", "gs://bucket/x", "https://x/y", "org/model\n", "a b"])
def test_any_other_source_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="is no model source"):
        source_kind(source)


@pytest.mark.parametrize("source", ["s3://models", "s3://models/", "s3://models//"])
def test_a_whole_bucket_is_no_source(source: str) -> None:
    with pytest.raises(ValueError, match=r"is a whole bucket; write s3://bucket/prefix"):
        source_kind(source)


@pytest.mark.parametrize("field", ["cpus", "drain_timeout_s"])
def test_endless_numbers_are_refused(field: str) -> None:
    with pytest.raises(ValidationError, match="finite"):
        VariantConfig.model_validate({"name": "v", "source": "a/b", field: float("inf")})


def test_truth_values_stay_truth_values() -> None:
    assert EngineConfig(enforce_eager=True).enforce_eager is True


def test_whole_numbers_may_come_as_floats() -> None:
    # Helm turns a large integer into 1e+06.
    assert PlatformConfig.model_validate({"limits": {"max_waiting": 1e6}}).limits.max_waiting == 1_000_000


def test_ranks_are_tensor_times_pipeline_parallel() -> None:
    assert EngineConfig(tensor_parallel_size=4, pipeline_parallel_size=2).ranks == 8
