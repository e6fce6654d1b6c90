"""Mistakes in values are told in words that name the key."""

from __future__ import annotations

import re

import pytest
import yaml
from ray._private import ray_constants
from ray.autoscaler._private import constants as autoscaler_constants
from ray.dashboard import consts as dashboard_constants
from ray.scripts import scripts as ray_command
from ray.serve._private import constants as serve_constants

from scripts import values_errors
from tests.chart.helm import CI_FILES, Json, files, pod_templates, refusal
from tests.chart.operations import blocks

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


WORKERS = {option.name: option.default for option in ray_command.start.params}
# What Ray 2.60 itself says that it listens on, and KubeRay's and Linux's own.
TAKEN = {
    "control-store": ray_constants.DEFAULT_PORT,
    "dashboard": ray_constants.DEFAULT_DASHBOARD_PORT,
    "agent": ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT,
    "dashboard-metrics": dashboard_constants.DASHBOARD_METRIC_PORT,
    "autoscaler-metrics": autoscaler_constants.AUTOSCALER_METRIC_PORT,
    "first-worker": WORKERS["min_worker_port"],
    "last-worker": WORKERS["max_worker_port"],
    "haproxy-statistics": serve_constants.RAY_SERVE_HAPROXY_STATS_PORT,
    "haproxy-metrics": serve_constants.RAY_SERVE_HAPROXY_METRICS_PORT,
    "fallback-http": serve_constants.RAY_SERVE_FALLBACK_PROXY_HTTP_PORT,
    "fallback-grpc": serve_constants.RAY_SERVE_FALLBACK_PROXY_GRPC_PORT,
    "first-of-a-router": serve_constants.RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT,
    "last-of-a-router": serve_constants.RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT,
    "first-grpc-of-a-router": serve_constants.RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT,
    "last-grpc-of-a-router": serve_constants.RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT,
    "metrics": 8080,
    "client": 10001,
    "ephemeral": 60999,
}


@pytest.mark.parametrize("key", ["http", "grpc"])
@pytest.mark.parametrize("taken", TAKEN)
def test_a_port_that_ray_has_is_refused(taken: str, key: str) -> None:
    assert f"ports.{key}: {TAKEN[taken]} is taken in Ray's pods by " in refusal({"ports": {key: TAKEN[taken]}})


def test_ports_of_pods_that_the_chart_names_are_refused() -> None:
    (head,) = (template["spec"]["containers"][0] for name, template in pod_templates().items() if name == "head")
    ports = {port["containerPort"] for port in head["ports"] if not port["name"].startswith("serve")}
    assert [port for port in sorted(ports) if not refusal({"ports": {"http": port}})] == []
    assert len(ports) >= 5


def test_both_sides_of_a_clash_are_named() -> None:
    assert "ports.http: 8080 is taken in Ray's pods by Ray's metrics;" in refusal({"ports": {"http": 8080}})
    assert "by Ray's worker processes (10002 to 19999);" in refusal({"ports": {"grpc": 12000}})
    assert "ports.grpc: 8000 is the port of `ports.http` too" in refusal({"ports": {"grpc": 8000}})


@pytest.mark.parametrize("port", [1024, 8088, 20000, 29999, 31001, 32767, 61000])
def test_a_port_that_is_free_is_taken(port: int) -> None:
    assert refusal({"ports": {"http": port}}) == ""


DERIVED = platform(models=[{"name": "chat", "variants": [{**STABLE, "accelerator": "L40S", "replicas": 2}]}])


def warnings(values: Json) -> list[str]:
    return re.findall(r"^WARNING: (.*)$", files(values)["NOTES.txt"], re.MULTILINE)


def test_groups_that_follow_from_models_are_told_with_what_they_may_hold() -> None:
    (told,) = warnings(DERIVED)
    assert told.endswith("in their order: cpu (1 to 4), gpu-l40s-1x1 (2 to 2).")
    l40s = {"name": "l40s", "accelerator": "L40S", "gpus": 1, "maxReplicas": 2}
    assert warnings({**DERIVED, "workerGroups": [{"name": "cpu"}, l40s]}) == []
    assert warnings({}) == []


NGINX = "nginx.ingress.kubernetes.io"


def test_nginx_is_told_of_large_bodies_and_long_streams() -> None:
    ingress = {"enabled": True, "className": "nginx", "hosts": ["llm.example.org"]}
    (both,) = warnings({"ingress": ingress})
    assert f"refuses bodies over 1 MiB ({NGINX}/proxy-body-size), and ends streams" in both
    annotations = {f"{NGINX}/proxy-body-size": "0", f"{NGINX}/proxy-read-timeout": "3600"}
    assert warnings({"ingress": {**ingress, "annotations": annotations}}) == []
    assert warnings({"ingress": {**ingress, "className": "traefik"}}) == []


def test_the_examples_of_an_ingress_warn_of_nothing() -> None:
    texts = [file.read_text(encoding="utf-8") for file in CI_FILES] + [block.text for block in blocks("yaml")]
    values = [each for text in texts if (each := yaml.safe_load(text)).get("ingress")]
    assert [told for each in values for told in warnings(each) if NGINX in told] == []
    assert len(values) >= 2


def test_streams_that_a_pod_has_no_time_for_are_warned_of() -> None:
    model = {"name": "chat", "variants": [{"name": "stable", "source": "org/m", "drain_timeout_s": 40}]}
    values = {"platform": {"models": [model], "router": {"drain_timeout_s": 20}}}
    (told,) = warnings({**values, "pod": {"terminationGracePeriodSeconds": 60}})
    assert told.startswith("streams of chat.stable may take longer (drain_timeout_s) than a pod that stops has (30 s)")
    assert warnings({**values, "pod": {"terminationGracePeriodSeconds": 70}}) == []
