"""How clients, the operator and nodes' drains reach the pods."""

from __future__ import annotations

import json

import pytest

from tests.chart.helm import CHART, Json, ci_values, objects, of_kind, pod_templates, rayservice, refusal

pytestmark = pytest.mark.chart

GPU, MULTI, LOCKED, HA, HOSTS = (
    ci_values(CHART / "ci" / f"{name}-values.yaml")
    for name in ("gpu-single", "multi-model", "locked-down", "ha", "tp-pp-multi-host")
)
CLOSED: Json = {"networkPolicy": {"egress": {"enabled": True}}}


def one(kind: str, values: Json | None = None) -> Json:
    (found,) = of_kind(kind, values)
    return found


def test_the_stable_service_has_both_apis_and_knows_what_they_speak() -> None:
    service = rayservice({"ports": {"http": 8088, "grpc": 9090}})["spec"]["serveService"]
    assert service["metadata"]["name"] == "demo-manta-serve-svc"
    assert [(p["name"], p["port"], p["appProtocol"]) for p in service["spec"]["ports"]] == [
        ("serve", 8088, "http"),
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
    labels = {"app.kubernetes.io/part-of": "manta", "app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "ray"}
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
    assert [rule.get("ports", [{}])[0].get("port") for rule in spec["egress"]] == [None, 53, 443, 6379, 9000]
    assert "egress" not in one("NetworkPolicy")["spec"]


def egress_to(port: int, values: Json) -> list[Json]:
    """Return the peers that pods may reach at a port."""
    rules = one("NetworkPolicy", values)["spec"]["egress"]
    return [peer for rule in rules if port in [each["port"] for each in rule.get("ports", [])] for peer in rule["to"]]


def test_redis_of_the_release_stays_reachable() -> None:
    (peer,) = egress_to(6379, {**HA, **CLOSED})
    (redis,) = of_kind("StatefulSet", HA)
    assert peer["podSelector"]["matchLabels"] == redis["spec"]["template"]["metadata"]["labels"]


NAMED: dict[str, tuple[Json, int]] = {
    "redis": ({"gcsFaultTolerance": {"enabled": True, "redisAddress": "redis.example.org:6380"}}, 6380),
    "redis-with-tls": ({"gcsFaultTolerance": {"enabled": True, "redisAddress": "rediss://redis.example.org:6390"}}, 6390),
    "object-store": ({"objectStore": {"endpoint": "http://minio.storage.svc:9000/path"}}, 9000),
    "object-store-without-a-port": ({"objectStore": {"endpoint": "http://minio.storage.svc"}}, 80),
    "traces": ({"platform": {"tracing": {"enabled": True, "endpoint": "http://otel.monitoring:4318/v1/traces"}}}, 4318),
    "traces-by-environment": (
        {"pod": {"env": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel.monitoring:4317"}]}},
        4317,
    ),
    "proxy": ({"pod": {"env": [{"name": "HTTPS_PROXY", "value": "http://user:pw@proxy.example.org:3128"}]}}, 3128),
}


@pytest.mark.parametrize("case", NAMED)
def test_closed_egress_leaves_open_what_the_values_name(case: str) -> None:
    values, port = NAMED[case]
    assert egress_to(port, CLOSED | values) == [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "0.0.0.0/0"}}]
    assert egress_to(port, CLOSED) == []


def test_closed_egress_has_no_rule_for_addresses_that_nobody_names() -> None:
    values = CLOSED | {"objectStore": {"endpoint": "https://s3.example.org"}, "pod": {"env": [{"name": "A", "value": "b:1"}]}}
    rules = one("NetworkPolicy", values)["spec"]["egress"]
    assert [[each["port"] for each in rule.get("ports", [])] for rule in rules] == [[], [53, 53, 5353, 5353], [443, 6443]]


def budgets(values: Json | None = None) -> dict[str, Json]:
    return {each["metadata"]["name"]: each["spec"] for each in of_kind("PodDisruptionBudget", values)}


def test_budgets_are_numbers_of_pods_since_a_ray_cluster_has_no_scale() -> None:
    found = budgets(HA)
    assert {name: spec["minAvailable"] for name, spec in found.items()} == {
        "demo-manta-cpu": 2,
        "demo-manta-gpu-l40s-1x1": 2,
        "demo-manta-head": 1,
    }
    assert [name for name, spec in found.items() if "maxUnavailable" in spec] == []
    assert found["demo-manta-cpu"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_a_budget_that_would_hold_nothing_is_not_made() -> None:
    assert budgets() == {}
    assert budgets({"cpuWorkers": {"minReplicas": 4}, "pdb": {"maxUnavailable": 4}}) == {}
    assert budgets({"cpuWorkers": {"minReplicas": 4}, "pdb": {"maxUnavailable": 3}})["demo-manta-cpu"]["minAvailable"] == 1
    assert budgets({"pdb": {"maxUnavailable": 0}})["demo-manta-cpu"]["minAvailable"] == 1
    assert budgets({**HA, "pdb": {"enabled": False}}) == {}


def test_the_head_may_be_drained_unless_that_is_refused() -> None:
    assert "demo-manta-head" not in budgets({**HA, "pdb": {"protectHead": False}})
    assert budgets(HA)["demo-manta-head"]["selector"]["matchLabels"]["ray.io/node-type"] == "head"


def test_of_a_replica_on_several_hosts_one_pod_counts_and_the_others_go_only_within_the_budget() -> None:
    values = json.loads(json.dumps(HOSTS))
    values["platform"]["models"][1]["variants"][0]["replicas"] = 3  # 4 hosts each
    found = budgets(values)
    assert (
        found["demo-manta-gpu-a100-2x4"]["minAvailable"],
        found["demo-manta-gpu-a100-2x4"]["unhealthyPodEvictionPolicy"],
    ) == (
        2,
        "IfHealthyBudget",
    )


def test_a_percentage_is_no_budget() -> None:
    assert "pdb/maxUnavailable" in refusal({"pdb": {"maxUnavailable": "50%"}})


@pytest.mark.parametrize("kind", ["NetworkPolicy", "PodDisruptionBudget", "PodMonitor"])
def test_what_selects_pods_of_ray_selects_them_all_by_labels_that_they_have(kind: str) -> None:
    platform = {**HA["platform"], "router": {"replicas": 3}}  # so that the CPU group may have one pod, and no budget
    found = one(kind, {**HA, "platform": platform, "cpuWorkers": {"minReplicas": 1}, "pdb": {"protectHead": False}})["spec"]
    selector = found.get("podSelector", found.get("selector"))["matchLabels"]
    ours = {key: value for key, value in selector.items() if not key.startswith("ray.io/")}  # KubeRay adds those
    for template in pod_templates(HA).values():
        assert ours.items() <= template["metadata"]["labels"].items()
    assert len(ours) == 3


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


@pytest.mark.parametrize("modes", [["ReadWriteOnce"], ["ReadWriteOncePod"], ["ReadOnlyMany", "ReadWriteOnce"]], ids=",".join)
@pytest.mark.parametrize("path", ["modelCache.persistence", "data"])
def test_a_volume_that_one_node_alone_can_mount_is_refused(path: str, modes: list[str]) -> None:
    def values(claim: Json) -> Json:
        return {"data": claim} if path == "data" else {"modelCache": {"persistence": claim}}

    message = refusal(values({"enabled": True, "accessModes": modes}))
    for words in (f"{path}.accessModes: {', '.join(modes)} lets", "ReadWriteMany", f"`{path}.existingClaim`"):
        assert words in message
    assert refusal(values({"enabled": True, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]})) == ""
    assert refusal(values({"enabled": True, "accessModes": modes, "existingClaim": "mine"})) == ""
    assert refusal(values({"enabled": False, "accessModes": modes})) == ""


def test_the_disk_of_redis_goes_with_the_release() -> None:
    (redis,) = of_kind("StatefulSet", HA)
    assert redis["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Delete", "whenScaled": "Retain"}


def test_further_objects_are_templates() -> None:
    notes = [each for each in of_kind("ConfigMap", MULTI) if each["metadata"]["name"] == "demo-manta-note"]
    assert notes[0]["data"] == {"service": "demo-manta-serve-svc"}
