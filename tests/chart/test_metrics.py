"""What Prometheus scrapes, alerts on and Grafana shows: only metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import ray.serve

from serve_app import metrics
from serve_app.metrics import Metric
from serve_app.rollout.plan import Phase
from serve_app.rollout.telemetry import FAILURES
from tests.chart.helm import CHART, Json, files, of_kind

pytestmark = pytest.mark.chart

ON: Json = {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}
OURS = {f"ray_{each.name}": each for each in vars(metrics).values() if isinstance(each, Metric)}
SERVE = "".join(file.read_text(encoding="utf-8") for file in Path(ray.serve.__file__).parent.rglob("*.py"))
NAME = re.compile(r"\bray_[a-z_]+|\bup\b(?=\{)")
DASHBOARDS = sorted(CHART.glob("files/dashboards/*.json"))


def alerts() -> dict[str, Json]:
    (rule,) = of_kind("PrometheusRule", ON)
    return {each["alert"]: each for group in rule["spec"]["groups"] for each in group["rules"]}


def expressions() -> list[str]:
    found = [alert["expr"] for alert in alerts().values()]
    for file in DASHBOARDS:
        board = json.loads(file.read_text(encoding="utf-8"))
        found += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        found += [variable["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    return found


def exists(name: str) -> bool:
    if name == "up" or name in OURS or name in ("ray_io_cluster", "ray_io_node_type"):
        return True
    serve = re.sub(r"_(bucket|total|sum|count)$", "", name.removeprefix("ray_"))
    return f'"{serve}"' in SERVE


def test_every_metric_that_is_asked_for_exists() -> None:
    names = {name for expression in expressions() for name in NAME.findall(expression)}
    assert [name for name in sorted(names) if not exists(name)] == []
    assert len(names) > 15


def test_labels_that_are_grouped_by_belong_to_our_metrics() -> None:
    for expression in expressions():
        for labels, body in re.findall(r"by \(([^)]*)\) \((?:rate|increase)?\(?(ray_manta_[a-z_]+)", expression):
            assert set(labels.replace(" ", "").split(",")) <= set(OURS[body].labels), expression


def test_alerts_cover_what_breaks() -> None:
    assert set(alerts()) == {
        "MantaErrorRate",
        "MantaSlowAnswers",
        "MantaQueueDepth",
        "MantaNoReplica",
        "MantaCanaryRolledBack",
        "MantaRoutersBehind",
        "MantaHeadDown",
    }


def test_alerts_know_the_words_of_the_platform() -> None:
    found = alerts()
    outcomes = re.search(r'outcome=~"([^"]*)"', found["MantaErrorRate"]["expr"])
    assert outcomes is not None
    assert set(outcomes[1].split("|")) == {outcome.value for outcome in FAILURES}
    assert f'phase="{Phase.ROLLED_BACK.value}"' in found["MantaCanaryRolledBack"]["expr"]


def test_alerts_look_at_this_release_only_and_name_a_severity() -> None:
    for alert in alerts().values():
        assert 'namespace="ml"' in alert["expr"]
        assert 'ray_io_cluster=~"demo-manta-.*"' in alert["expr"]
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert set(alert["annotations"]) == {"summary", "description"}


def test_the_limits_of_alerts_are_values() -> None:
    values = {"prometheusRule": {"enabled": True, "errorRatio": 0.2, "latencySeconds": 7, "queueDepth": 3}}
    (rule,) = of_kind("PrometheusRule", values)
    text = " ".join(each["expr"] for each in rule["spec"]["groups"][0]["rules"])
    assert [limit in text for limit in ("> 0.2", "> 7000", "> 3")] == [True] * 3


def test_every_port_with_metrics_is_scraped() -> None:
    (monitor,) = of_kind("PodMonitor", ON)
    assert [each["port"] for each in monitor["spec"]["podMetricsEndpoints"]] == ["metrics", "as-metrics", "dash-metrics"]
    assert "ray.io/cluster" in monitor["spec"]["podTargetLabels"]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_is_whole(file: Path) -> None:
    board = json.loads(file.read_text(encoding="utf-8"))
    assert board["uid"] == f"manta-{file.stem}"
    assert len(board["panels"]) >= 5
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"


def test_dashboards_are_found_by_grafana() -> None:
    boards = [each for each in of_kind("ConfigMap", ON) if each["metadata"]["labels"].get("grafana_dashboard")]
    assert [name for board in boards for name in board["data"]] == [file.name for file in DASHBOARDS]
    assert all(json.loads(text) for board in boards for text in board["data"].values())


def test_nothing_needs_prometheus_operator_by_default() -> None:
    assert not [path for path in files() if path.startswith("metrics-")]
