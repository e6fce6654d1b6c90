from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from serve_app.config import PlatformConfig
from serve_app.replica_set import BALANCE
from serve_app.rollout.document import RoutingDocument, declared_split, parts, revisions, routing_document
from serve_app.rollout.table import Share, Split
from tests.unit.serve_app.fakes import PIPELINE, model

CONFIG = PlatformConfig.model_validate(
    {
        "models": [
            {
                "name": "chat",
                "variants": [
                    {"name": "stable", "source": "org/a", "weight": 90, "engine": {"kind": "simulated", "max_model_len": 4096}},
                    {"name": "canary", "source": "org/b", "weight": 10, "max_leases": 7, "autoscaling": {"min_replicas": 0}},
                ],
            }
        ],
        "embedders": [{"name": "minilm", "source": "org/minilm"}],
    }
)


def test_routers_learn_names_weights_and_limits_and_nothing_else_of_a_variant() -> None:
    [model] = routing_document(CONFIG).models
    assert model.weights == (("stable", 90), ("canary", 10))
    assert [(v.max_leases, v.engine) for v in model.variants] == [(256, "simulated"), (7, "vllm")]
    assert [(v.may_sleep, v.max_model_len) for v in model.variants] == [(False, 4096), (True, None)]
    assert routing_document(CONFIG).embedders == ("minilm",)


def test_a_document_survives_its_way_as_json() -> None:
    made = routing_document(CONFIG)
    assert RoutingDocument.model_validate_json(made.model_dump_json()) == made


def test_routers_learn_how_to_choose_a_replica() -> None:
    router = CONFIG.router.model_copy(update={"replica_choice": "random", "balance_factor": 2.0})
    made = routing_document(CONFIG.model_copy(update={"router": router}))
    assert (made.replica_choice, made.balance_factor) == ("random", 2.0)
    unset = RoutingDocument()
    assert (
        (unset.replica_choice, unset.balance_factor) == (CONFIG.router.replica_choice, CONFIG.router.balance_factor) == BALANCE
    )


def test_routers_learn_how_to_keep_clients_waiting_and_whose_pages_may_call() -> None:
    router = CONFIG.router.model_copy(update={"keep_alive_s": 3.0, "cors_origins": ("*",)})
    made = routing_document(CONFIG.model_copy(update={"router": router}))
    assert (made.keep_alive_s, made.cors_origins) == (3.0, ("*",))
    assert RoutingDocument().keep_alive_s == CONFIG.router.keep_alive_s


PLATFORM: dict[str, Any] = {
    "models": [
        {
            "name": "chat",
            "variants": [
                {"name": "stable", "source": "org/a"},
                {"name": "canary", "source": "org/b", "weight": 0, "autoscaling": {"max_replicas": 2}},
            ],
            "rollout": {"steps": [{"weight": 5, "pause": "10m"}]},
            "shadow": {"variant": "canary", "percent": 10},
            "fallback": False,
            "first_byte_timeout": "90s",
        }
    ]
}


def canary_revision(**changes: Any) -> str:
    """Return the canary's revision after some fields of its configuration have changed."""
    document = deepcopy(PLATFORM)
    document["models"][0]["variants"][1].update(changes)
    if (weight := changes.get("weight")) is not None:
        document["models"][0]["variants"][0]["weight"] = 100 - weight
    [chat] = routing_document(PlatformConfig.model_validate(document)).models
    return revisions(chat)["canary"]


@pytest.mark.parametrize(
    "changes",
    [{"weight": 5}, {"replicas": 3}, {"autoscaling": {"max_replicas": 9}}, {"max_leases": 7}, {"price_per_hour": 2.5}],
    ids=["weight", "replicas", "autoscaling", "max-leases", "price"],
)
def test_what_changes_in_place_is_no_other_revision(changes: dict[str, Any]) -> None:
    assert canary_revision(**changes) == canary_revision()


@pytest.mark.parametrize(("budget", "budgeted"), [(None, frozenset()), (4, frozenset({"stable"}))], ids=["no-budget", "budget"])
def test_routers_leave_it_to_the_policy_to_wake_what_shares_accelerators(budget: int | None, budgeted: frozenset[str]) -> None:
    document = deepcopy(PLATFORM)
    document["models"][0]["variants"][0]["accelerator"] = "L40S"
    plain = routing_document(PlatformConfig.model_validate(document)).models[0]
    document["scaling"] = {"max_accelerators": budget}
    chat = routing_document(PlatformConfig.model_validate(document)).models[0]
    assert (chat.budgeted, revisions(chat)) == (budgeted, revisions(plain))


@pytest.mark.parametrize(
    "changes",
    [{"source": "org/c"}, {"engine": {"max_model_len": 64}}, {"accelerator": "L40S"}, {"cpus": 2.0}],
    ids=["weights", "engine", "accelerator", "cpus"],
)
def test_what_makes_other_replicas_is_another_revision(changes: dict[str, Any]) -> None:
    assert canary_revision(**changes) != canary_revision()


def test_a_revision_is_the_same_in_every_process() -> None:
    assert canary_revision() == "f3c733bff5fd"


def test_a_pipelines_version_is_made_of_everything_but_its_weight() -> None:
    [v1] = PIPELINE.versions
    lighter, longer = v1.model_copy(update={"weight": 40}), v1.model_copy(update={"prompt": "{{ question }}"})
    found = [revisions(PIPELINE.model_copy(update={"versions": (version,)}))["v1"] for version in (v1, lighter, longer)]
    assert (found[0] == found[1], found[0] == found[2]) == (True, False)


def test_routers_learn_how_a_model_rolls_out_falls_back_and_is_shadowed() -> None:
    config = PlatformConfig.model_validate(PLATFORM).models[0]
    [chat] = routing_document(PlatformConfig.model_validate(PLATFORM)).models
    assert (chat.rollout, chat.shadow, chat.fallback, chat.first_byte_timeout_s) == (config.rollout, config.shadow, False, 90.0)
    made = RoutingDocument(models=(chat,))
    assert RoutingDocument.model_validate_json(made.model_dump_json()) == made


def test_everything_whose_traffic_is_split_is_a_part() -> None:
    chat = model(("stable", 100))
    assert parts(RoutingDocument(models=(chat,), pipelines=(PIPELINE,))) == (chat, PIPELINE)


def test_without_a_rollout_the_first_declared_is_the_baseline() -> None:
    shares = (Share(variant="canary", weight=10), Share(variant="stable", weight=90))
    assert declared_split(model(("canary", 10), ("stable", 90))) == Split(name="chat", shares=shares, baseline="canary")


def test_with_a_rollout_the_baseline_is_what_it_says() -> None:
    [chat] = routing_document(PlatformConfig.model_validate(PLATFORM)).models
    turned = chat.model_copy(update={"variants": chat.variants[::-1]})
    assert declared_split(turned).baseline == "stable"


def test_a_pipelines_versions_share_its_traffic() -> None:
    assert declared_split(PIPELINE) == Split(name="docs", shares=(Share(variant="v1", weight=100),), baseline="v1")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("variants", [{"name": "stable", "weight": 90, "max_leases": 1, "engine": "vllm"}], "must sum to 100, got 90"),
        ("rollout", {"variant": "gone", "steps": [{"weight": 5}]}, "'gone' is not declared"),
        ("shadow", {"variant": "gone", "percent": 5}, "'gone' is not declared"),
    ],
    ids=["weights", "rollout", "shadow"],
)
def test_a_document_whose_parts_do_not_fit_is_refused(field: str, value: object, message: str) -> None:
    document = RoutingDocument(models=(model(("stable", 100)),)).model_dump(mode="json")
    document["models"][0][field] = value
    with pytest.raises(ValueError, match=message):
        RoutingDocument.model_validate(document)
