"""Mistakes in values are told in words that name the key."""

from __future__ import annotations

import pytest

from scripts import values_errors
from tests.chart.helm import Json, refusal

pytestmark = pytest.mark.chart

MISTAKES = dict(values_errors.mistakes())


def test_there_are_enough_mistakes() -> None:
    assert len(MISTAKES) >= 30


@pytest.mark.parametrize("title", MISTAKES)
def test_a_mistake_is_told(title: str) -> None:
    message = values_errors.message(MISTAKES[title])
    assert message.startswith(("values don't meet the specifications", "these values cannot work:\n  - "))
    assert len(message) < 600


def test_the_page_is_what_the_script_writes() -> None:
    assert values_errors.main(["--check"]) == 0


def test_a_key_that_is_pasted_by_mistake_is_not_repeated() -> None:
    assert "0123456789" not in values_errors.message(MISTAKES["An API key in place of its hash"])


def test_all_problems_are_told_at_once() -> None:
    variants = [{"name": "stable", "source": "./m", "weight": 10, "autoscaling": {"min_replicas": 3, "max_replicas": 1}}]
    message = refusal({"platform": {"models": [{"name": "chat", "variants": variants}]}, "ingress": {"enabled": True}})
    for words in ("weights must sum to 100, got 10", "is a relative folder", "min_replicas 3 is over", "ingress.hosts"):
        assert words in message


STABLE = {"name": "stable", "source": "org/m"}
CHAT = {"name": "chat", "variants": [STABLE]}
E5 = {"name": "e5", "source": "org/e5"}
VERSION = {"name": "v1", "embedder": "e5", "collection": "c", "model": "chat", "prompt": "{{ question }}"}
S3 = {"vector_store": {"uri": "s3://b/lance"}}


def platform(**more: object) -> Json:
    return {"platform": {"models": [CHAT], **more}}


BROKEN: dict[str, tuple[Json, str]] = {
    "adapter-weights": (
        platform(models=[{**CHAT, "adapters": [{"name": "a", "versions": [{"name": "v1", "source": "org/a", "weight": 1}]}]}]),
        "platform.models[0].adapters[0].versions: version weights must sum to 100, got 1",
    ),
    "shadow": (
        platform(models=[{**CHAT, "shadow": {"variant": "canary", "percent": 5}}]),
        'platform.models[0].shadow.variant: variant "canary" is not declared, declared: stable',
    ),
    "stores-embedder": (
        platform(vector_stores={"embedder": "e5"}, **S3),
        'platform.vector_stores.embedder: embedder "e5" is not declared, declared: none',
    ),
    "condense-model": (
        platform(embedders=[E5], pipelines=[{"name": "p", "versions": [{**VERSION, "condense": {"model": "tiny"}}]}], **S3),
        'condense.model: model "tiny" is not declared, declared: chat',
    ),
    "key-models": (
        platform(auth={"keys": [{"name": "a", "hash": f"sha256:{'0' * 32}:{'0' * 64}", "models": ["gpt"]}]}),
        'platform.auth.keys[0].models[0]: model "gpt" is not declared, declared: chat',
    ),
    "embedder-bounds": (
        platform(embedders=[{**E5, "autoscaling": {"min_replicas": 2, "max_replicas": 1}}]),
        "platform.embedders[0].autoscaling.min_replicas: min_replicas 2 is over max_replicas 1",
    ),
    "router-bounds": (
        platform(router={"autoscaling": {"min_replicas": 5, "max_replicas": 4}}),
        "platform.router.autoscaling.min_replicas: min_replicas 5 is over max_replicas 4",
    ),
    "group-bounds": (
        {"workerGroups": [{"name": "cpu", "minReplicas": 3, "maxReplicas": 2}]},
        "workerGroups[0].minReplicas: minReplicas 3 is over maxReplicas 2",
    ),
    "chat-template": (
        platform(models=[{"name": "chat", "variants": [{**STABLE, "engine": {"chat_template": "chat.jinja"}}]}]),
        'engine.chat_template: "chat.jinja" is a file',
    ),
    "keys-without-a-secret": ({"apiKeys": {"existingSecret": ""}}, "apiKeys.existingSecret: `platform.auth.keys_file` is"),
    "relative-keys": (
        platform(auth={"keys_file": "keys.yaml"}),
        'platform.auth.keys_file: "keys.yaml" must be an absolute path',
    ),
    "grpc-route": (
        {**platform(router={"grpc": False}), "grpcRoute": {"enabled": True}, "gateway": {"parentRefs": [{"name": "g"}]}},
        "grpcRoute.enabled: `platform.router.grpc` is false",
    ),
    "incremental-beside-routes": (
        {
            "upgrade": {"type": "NewClusterWithIncrementalUpgrade", "incremental": {"gatewayClassName": "g"}},
            "ingress": {"enabled": True, "hosts": ["llm.example.org"]},
        },
        "ingress.enabled: an incremental upgrade has a Gateway and an HTTPRoute of its own",
    ),
    "step-over-surge": (
        {
            "upgrade": {
                "type": "NewClusterWithIncrementalUpgrade",
                "incremental": {"gatewayClassName": "g", "stepSizePercent": 50, "maxSurgePercent": 20},
            }
        },
        "upgrade.incremental.stepSizePercent: 50 is over maxSurgePercent 20",
    ),
    "no-accelerator-of-the-type": (
        {
            **platform(models=[{"name": "chat", "variants": [{**STABLE, "accelerator": "H200"}]}]),
            "workerGroups": [{"name": "cpu"}, {"name": "l40s", "accelerator": "L40S", "gpus": 1}],
        },
        "those with this accelerator: none",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_told(case: str) -> None:
    values, words = BROKEN[case]
    assert words in refusal(values)


def test_a_release_whose_name_is_no_host_name_is_refused() -> None:
    assert "must start with a letter" in refusal({}, name="1manta")
    assert refusal({"fullnameOverride": "llm"}, name="1manta") == ""


def test_a_model_that_is_spread_over_hosts_of_one_group_fits() -> None:
    engine = {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}
    groups = [{"name": "cpu"}, {"name": "h100", "accelerator": "H100", "gpus": 8}]
    chat = {"name": "chat", "variants": [{**STABLE, "accelerator": "any", "engine": engine}]}
    assert refusal({**platform(models=[chat]), "workerGroups": groups}) == ""
