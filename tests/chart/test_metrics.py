"""What Prometheus scrapes, records, alerts on and Grafana shows: only metrics that exist."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import ray.dashboard.modules.reporter
import ray.serve

from serve_app import metrics
from serve_app.metrics import Metric
from serve_app.observing.record import FAILED, STAGES, RequestOutcome
from serve_app.rollout.plan import Phase
from serve_app.rollout.telemetry import FAILURES
from tests.chart.helm import CHART, Json, files, of_kind
from tests.promql import of_dashboard, of_rules

pytestmark = pytest.mark.chart

ON: Json = {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}
OURS = {f"ray_{each.name}": each for each in vars(metrics).values() if isinstance(each, Metric)}
OUTSIDE = {"namespace", "ray_io_cluster"}  # labels that come from the scrape
NAME = re.compile(r"\bray_[a-z_]+|\bup\b(?=\{)")
RECORDED = re.compile(r"\bmanta:[a-z0-9_]+:[a-z0-9_]+")
DASHBOARDS = sorted(CHART.glob("files/dashboards/*.json"))


def text_of(folder: Path) -> str:
    return "".join(file.read_text(encoding="utf-8") for file in folder.rglob("*.py"))


SERVE = text_of(Path(ray.serve.__file__).parent)
NODES = text_of(Path(ray.dashboard.modules.reporter.__path__[0]))


def vllm_metrics() -> str:
    """Return the source of vLLM's metrics; importing vLLM takes a minute."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("needs vLLM's source")
    return (Path(spec.origin).parent / "v1" / "metrics" / "loggers.py").read_text(encoding="utf-8")


def groups(values: Json | None = None) -> list[Json]:
    (rule,) = of_kind("PrometheusRule", values or ON)
    found: list[Json] = rule["spec"]["groups"]
    return found


def alerts(values: Json | None = None) -> dict[str, Json]:
    return {rule["alert"]: rule for group in groups(values) for rule in group["rules"] if "alert" in rule}


def recorded() -> dict[str, str]:
    return {rule["record"]: rule["expr"] for group in groups() for rule in group["rules"] if "record" in rule}


def boards() -> dict[str, Json]:
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in DASHBOARDS}


def expressions() -> list[str]:
    shown = [place.expr for board in boards().values() for place in of_dashboard(board)]
    return [*shown, *(place.expr for place in of_rules(groups()))]


def ours(name: str) -> Metric | None:
    """Return the metric that a series is of, where it is one of ours."""
    if name in OURS:
        return OURS[name]
    found = OURS.get(re.sub(r"_(bucket|sum|count)$", "", name))
    return found if found is not None and found.kind == "histogram" else None


def exists(name: str) -> bool:
    if name in ("up", "ray_io_cluster", "ray_io_node_type") or ours(name) is not None:
        return True
    name = name.removeprefix("ray_")
    base = re.sub(r"_(bucket|total|sum|count)$", "", name)
    if name.startswith("vllm_"):
        return f'"vllm:{base.removeprefix("vllm_")}"' in vllm_metrics()
    return f'"{name}"' in NODES if name.startswith("node_") else f'"{base}"' in SERVE


def test_every_metric_that_is_asked_for_exists() -> None:
    names = {name for expression in expressions() for name in NAME.findall(expression)}
    assert [name for name in sorted(names) if not exists(name)] == []
    assert len(names) > 40


def test_whatever_is_recorded_is_used_and_nothing_else_is_asked_for() -> None:
    asked = {name for expression in expressions() for name in RECORDED.findall(expression)}
    assert asked == set(recorded())


def test_every_metric_of_ours_is_shown_somewhere() -> None:
    asked = {ours(name) for expression in expressions() for name in NAME.findall(expression)}
    left_out = {metrics.ADAPTER_LOADS, metrics.ADAPTERS_LOADED}  # for those who use adapters: docs/adapters.md
    assert set(OURS.values()) - asked == left_out


def labels_of(name: str) -> set[str]:
    """Return the labels of a series of ours, or of one that is recorded."""
    if (metric := ours(name)) is not None:
        return {*metric.labels, *({"le"} if metric.kind == "histogram" else ()), *OUTSIDE}
    expr = recorded()[name]
    by = re.search(r"by \(([^)]*)\)", expr)
    assert by is not None, expr
    labels = set(by[1].split(", "))
    return labels if "_bucket:" in name else labels - {"le"}


def test_labels_that_are_asked_for_are_those_of_the_series() -> None:
    grouped = re.compile(r"by \(([^)]*)\) \(\s*(?:(?:rate|increase|min_over_time)\()?(ray_manta_[a-z_]+|manta:[a-z0-9_:]+)")
    picked = re.compile(r"(ray_manta_[a-z_]+|manta:[a-z0-9_:]+)\{([^}]*)\}")
    checked = 0
    for expression in expressions():
        asked = [(name, set(labels.split(", "))) for labels, name in grouped.findall(expression)]
        asked += [(name, set(re.findall(r"(\w+)(?:=~|!=|!~|=)\"", body))) for name, body in picked.findall(expression)]
        for name, labels in asked:
            assert labels <= labels_of(name), (name, expression)
            checked += 1
    assert checked > 200


def words(expr: str, label: str) -> set[str]:
    """Return the values that an expression asks for by a label, of all its selectors together."""
    return {word for found in re.findall(rf'{label}=~?"([^"]*)"', expr) for word in found.split("|")}


def test_rules_know_the_words_of_the_platform() -> None:
    rules, found = recorded(), alerts()
    assert words(rules["manta:requests_failed:ratio5m"], "outcome") == {*FAILED, RequestOutcome.OK}
    assert words(rules["manta:attempts_failed:ratio5m"], "outcome") == {*FAILURES, "ok"}
    unanswered = {*FAILED, RequestOutcome.CANCELLED, RequestOutcome.OK}
    assert words(found["MantaNothingAnswered"]["expr"], "outcome") == unanswered
    refused = {RequestOutcome.CLIENT_ERROR, RequestOutcome.RATE_LIMITED, RequestOutcome.OK}
    assert words(found["MantaAllRefused"]["expr"], "outcome") == refused
    assert words(found["MantaCanaryRolledBack"]["expr"], "phase") == {Phase.ROLLED_BACK}
    assert words(found["MantaRolloutStuck"]["expr"], "phase") == {Phase.HELD, Phase.PAUSED, Phase.WAITING}
    assert words(rules["manta:retrieval_failed:ratio5m"], "stage") <= set(STAGES)


def test_alerts_and_records_look_at_this_release_only() -> None:
    for place in of_rules(groups()):
        selectors = re.findall(r"(?:ray_|manta:|up\b)[a-z0-9_:]*\{([^}]*)\}", place.expr)
        assert selectors, place
        for selector in selectors:
            assert 'namespace="ml"' in selector, place
            assert 'ray_io_cluster=~"demo-manta-[^-]+"' in selector, place
        assert len(selectors) == len(NAME.findall(place.expr.replace("ray_io_", ""))) + len(RECORDED.findall(place.expr)), place


def test_releases_and_clusters_stay_apart() -> None:
    by = {name: re.search(r"by \(([^)]*)\)", expr) for name, expr in recorded().items()}
    assert [name for name, found in by.items() if found is None or OUTSIDE - set(found[1].split(", "))] == []


def test_an_alert_names_its_severity_and_what_to_do() -> None:
    for alert in alerts().values():
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}


LIMITS: dict[str, tuple[str, Any]] = {
    "errorRatio": ("MantaRequestsFail", 0.2),
    "retryRatio": ("MantaRetries", 0.3),
    "ejections": ("MantaEjections", 77),
    "limitsRatio": ("MantaLimitsHit", 0.4),
    "ttftSeconds": ("MantaSlowFirstToken", 3.5),
    "itlSeconds": ("MantaSlowTokens", 0.7),
    "latencySeconds": ("MantaSlowAnswers", 7),
    "queueDepth": ("MantaQueueDepth", 33),
    "kvCacheRatio": ("MantaKvCacheFull", 0.6),
    "replicaStarts": ("MantaReplicasFlap", 9),
    "startSeconds": ("MantaSlowStart", 123),
    "emptyRatio": ("MantaRetrievalEmpty", 0.9),
}


@pytest.mark.parametrize("key", LIMITS)
def test_the_limit_of_an_alert_is_a_value(key: str) -> None:
    name, limit = LIMITS[key]
    assert f"> {limit}" in alerts({"prometheusRule": {"enabled": True, key: limit}})[name]["expr"].replace("\n", " ")


def test_how_long_a_rollout_may_stand_and_how_few_requests_count_are_values() -> None:
    found = alerts({"prometheusRule": {"enabled": True, "rolloutStuckSeconds": 7200, "minRequests": 42}})
    assert found["MantaRolloutStuck"]["for"] == "7200s"
    assert [name for name, rule in found.items() if ">= 42" in rule["expr"]] == [
        "MantaRequestsFail",
        "MantaNothingAnswered",
        "MantaAllRefused",
        "MantaVariantFails",
        "MantaRetries",
        "MantaLimitsHit",
    ]


def test_every_port_with_metrics_is_scraped() -> None:
    (monitor,) = of_kind("PodMonitor", ON)
    assert [each["port"] for each in monitor["spec"]["podMetricsEndpoints"]] == ["metrics", "as-metrics", "dash-metrics"]
    assert "ray.io/cluster" in monitor["spec"]["podTargetLabels"]


def test_dashboards_are_found_by_grafana() -> None:
    shown = [each for each in of_kind("ConfigMap", ON) if each["metadata"]["labels"].get("grafana_dashboard")]
    assert [name for each in shown for name in each["data"]] == [file.name for file in DASHBOARDS]
    assert all(json.loads(text) for each in shown for text in each["data"].values())


def test_nothing_needs_prometheus_operator_by_default() -> None:
    assert not [path for path in files() if path.startswith("metrics-")]
