from __future__ import annotations

from typing import Any

import pytest

from autoscaling.document import ScaledApp, ScalingDocument
from deployments.scaling_document import scaling_document
from serve_app.config import AutoscalingConfig, PlatformConfig

SCALED = {"min_replicas": 0, "max_replicas": 3, "slots": 8}
STAGE = {"min_replicas": 1, "max_replicas": 4, "target_queue_depth": 2}


def variant(name: str = "stable", **more: Any) -> dict[str, Any]:
    return {"name": name, "source": "org/m", **more}


def document(**config: Any) -> ScalingDocument:
    return scaling_document(PlatformConfig.model_validate(config))


def chat(**more: Any) -> dict[str, Any]:
    return {"models": [{"name": "chat", "variants": [variant(**more)]}]}


def test_every_application_that_may_scale_is_there() -> None:
    version = {"name": "v1", "embedder": "e", "collection": "c", "prompt": "{{ question }}", "model": "chat"}
    found = document(
        **chat(), embedders=[{"name": "e", "source": "org/e"}], pipelines=[{"name": "docs", "versions": [version]}]
    )
    assert [(name, app.deployment) for name, app in found.apps.items()] == [
        ("llm.chat.stable", "LLM"),
        ("embedder.e", "Embedder"),
        ("retriever", "Retriever"),
        ("router", "Router"),
    ]


def test_without_collections_there_is_no_retriever() -> None:
    assert list(document(**chat()).apps) == ["llm.chat.stable", "router"]


def test_a_variant_carries_its_own_settings() -> None:
    assert document(**chat(autoscaling=SCALED)).apps["llm.chat.stable"] == ScaledApp(
        deployment="LLM", settings=AutoscalingConfig.model_validate(SCALED), is_fixed=False
    )


@pytest.mark.parametrize(("replicas", "bounds"), [(0, (0, 1)), (3, (3, 3))], ids=["none", "some"])
def test_a_fixed_one_has_its_number_as_its_least(replicas: int, bounds: tuple[int, int]) -> None:
    app = document(**chat(replicas=replicas)).apps["llm.chat.stable"]
    assert (app.is_fixed, (app.settings.min_replicas, app.settings.max_replicas)) == (True, bounds)


def test_a_variants_price_travels_with_what_is_scaled() -> None:
    assert [document(**chat(**more)).apps["llm.chat.stable"].price_per_hour for more in ({}, {"price_per_hour": 0.75})] == [
        None,
        0.75,
    ]


def test_stages_scale_by_the_same_kind_of_settings() -> None:
    embedders = [{"name": "e", "source": "org/e", "autoscaling": STAGE, "accelerator": "L40S"}]
    found = document(embedders=embedders, router={"autoscaling": STAGE})
    wanted = AutoscalingConfig.model_validate(STAGE)
    assert [(app.settings, app.is_fixed, app.units) for app in found.apps.values()] == [
        (wanted, False, 1),
        (wanted, False, 0),
    ]


@pytest.mark.parametrize(("accelerator", "units"), [("L40S", 6), (None, 0)], ids=["gpu", "cpu"])
def test_a_replica_holds_an_accelerator_for_each_rank(accelerator: str | None, units: int) -> None:
    engine = {"tensor_parallel_size": 2, "pipeline_parallel_size": 3}
    found = document(**chat(engine=engine, accelerator=accelerator))
    assert found.apps["llm.chat.stable"].units == units


def test_the_budget_and_priorities_are_those_of_the_configuration() -> None:
    models = [{"name": "chat", "priority": 8, "variants": [variant()]}]
    found = document(models=models, scaling={"max_accelerators": 7})
    assert (found.max_accelerators, found.apps["llm.chat.stable"].priority) == (7, 8)


def test_it_survives_its_way_as_json() -> None:
    found = document(**chat(autoscaling=SCALED))
    assert ScalingDocument.model_validate_json(found.model_dump_json()) == found
