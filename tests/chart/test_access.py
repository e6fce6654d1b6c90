"""How clients, the operator and nodes' drains reach the pods."""

from __future__ import annotations

import pytest

from tests.chart.helm import CHART, Json, ci_values, objects, of_kind, pod_templates, rayservice

pytestmark = pytest.mark.chart

GPU, MULTI, LOCKED, HA = (
    ci_values(CHART / "ci" / f"{name}-values.yaml") for name in ("gpu-single", "multi-model", "locked-down", "ha")
)


def one(kind: str, values: Json | None = None) -> Json:
    (found,) = of_kind(kind, values)
    return found


def test_the_stable_service_has_both_apis_and_knows_what_they_speak() -> None:
    service = rayservice({"ports": {"http": 8080, "grpc": 9090}})["spec"]["serveService"]
    assert service["metadata"]["name"] == "demo-manta-serve-svc"
    assert [(p["name"], p["port"], p["appProtocol"]) for p in service["spec"]["ports"]] == [
        ("serve", 8080, "http"),
        ("serve-grpc", 9090, "kubernetes.io/h2c"),
    ]


def test_an_ingress_leads_to_the_stable_service() -> None:
    spec = one("Ingress", GPU)["spec"]
    assert spec["rules"][0]["http"]["paths"][0]["backend"]["service"] == {
        "name": "demo-manta-serve-svc",
        "port": {"name": "serve"},
    }
    assert spec["tls"] == [{"secretName": "llm-example-org", "hosts": ["llm.example.org"]}]


def test_routes_lead_to_the_stable_service() -> None:
    http, grpc = one("HTTPRoute", MULTI)["spec"], one("GRPCRoute", MULTI)["spec"]
    assert http["rules"][0]["backendRefs"] == [{"name": "demo-manta-serve-svc", "port": 8000}]
    assert http["rules"][0]["timeouts"] == {"request": "3600s", "backendRequest": "3600s"}
    assert (grpc["rules"][0]["backendRefs"], grpc["hostnames"]) == (
        [{"name": "demo-manta-serve-svc", "port": 9000}],
        ["grpc.example.org"],
    )


def test_nothing_leads_in_from_outside_by_default() -> None:
    kinds = {each["kind"] for each in objects()}
    assert not kinds & {"Ingress", "HTTPRoute", "GRPCRoute", "Secret"}
    assert rayservice()["spec"]["serveService"]["spec"]["type"] == "ClusterIP"


def test_the_operator_reaches_rays_api_and_nobody_else_does() -> None:
    rules = one("NetworkPolicy")["spec"]["ingress"]
    to_8265 = [rule for rule in rules if any(port["port"] == 8265 for port in rule.get("ports", []))]
    assert [rule["from"] for rule in to_8265] == [
        [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}}]
    ]


def test_pods_of_the_cluster_reach_each_other_on_every_port() -> None:
    labels = {"app.kubernetes.io/name": "manta", "app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "ray"}
    spec = one("NetworkPolicy")["spec"]
    assert spec["ingress"][0] == {"from": [{"podSelector": {"matchLabels": labels}}]}
    for template in pod_templates().values():
        assert labels.items() <= template["metadata"]["labels"].items()


def test_clients_are_named_and_tests_among_them() -> None:
    rule = one("NetworkPolicy", LOCKED)["spec"]["ingress"][2]
    assert rule["from"][0]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "apps"}}
    test_pods = rule["from"][-1]["podSelector"]["matchLabels"]
    for pod in of_kind("Pod", LOCKED):
        assert test_pods.items() <= pod["metadata"]["labels"].items()


def test_what_pods_may_reach_can_be_closed() -> None:
    spec = one("NetworkPolicy", LOCKED)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [rule.get("ports", [{}])[0].get("port") for rule in spec["egress"]] == [None, 53, 443, 9000]
    assert "egress" not in one("NetworkPolicy")["spec"]


def test_redis_of_the_release_stays_reachable() -> None:
    closed = {**HA, "networkPolicy": {"egress": {"enabled": True}}}
    ports = [rule["ports"][0]["port"] for rule in one("NetworkPolicy", closed)["spec"]["egress"] if "ports" in rule]
    assert 6379 in ports


def test_each_group_has_a_budget_for_drains_and_the_head_only_on_demand() -> None:
    budgets = {each["metadata"]["name"]: each["spec"] for each in of_kind("PodDisruptionBudget", HA)}
    assert {name: spec["maxUnavailable"] for name, spec in budgets.items()} == {
        "demo-manta-cpu": 1,
        "demo-manta-gpu-l40s-1x1": 1,
        "demo-manta-head": 0,
    }
    assert "minAvailable" not in budgets["demo-manta-cpu"]
    assert [each["metadata"]["name"] for each in of_kind("PodDisruptionBudget")] == ["demo-manta-cpu"]


def test_the_autoscaler_has_the_role_that_it_needs_and_no_other() -> None:
    assert one("RoleBinding")["subjects"] == [{"kind": "ServiceAccount", "name": "demo-manta-head", "namespace": "ml"}]
    assert {tuple(rule["resources"]) for rule in one("Role")["rules"]} == {("pods",), ("pods/resize",), ("rayclusters",)}
    assert of_kind("Role", {"autoscaler": {"enabled": False}}) == []


def test_an_account_of_your_own_is_used() -> None:
    assert of_kind("ServiceAccount", LOCKED) == []
    assert {t["spec"]["serviceAccountName"] for t in pod_templates(LOCKED).values()} == {"manta"}


def test_volumes_outlive_the_release() -> None:
    claim = one("PersistentVolumeClaim", GPU)
    assert (claim["metadata"]["name"], claim["metadata"]["annotations"]) == (
        "demo-manta-models",
        {"helm.sh/resource-policy": "keep"},
    )
    assert of_kind("PersistentVolumeClaim", LOCKED) == []


def test_further_objects_are_templates() -> None:
    notes = [each for each in of_kind("ConfigMap", MULTI) if each["metadata"]["name"] == "demo-manta-note"]
    assert notes[0]["data"] == {"service": "demo-manta-serve-svc"}
