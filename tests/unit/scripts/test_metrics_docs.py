"""docs/metrics.md says what is declared, and asks only for what exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from scripts import metrics_docs
from serve_app import metrics
from serve_app.metrics import Metric

EVERY = {each.name: each for each in vars(metrics).values() if isinstance(each, Metric)}
QUERIES = re.findall(r"```promql\n(.*?)```", metrics_docs.page(), re.DOTALL)
OF_VLLM = {"model", "variant", "model_name", "engine", "ReplicaId", "le"}


def declared(name: str) -> Metric | None:
    """Return the metric that a series on Ray's port is of."""
    plain = name.removeprefix("ray_")
    return EVERY.get(plain) or EVERY.get(re.sub(r"_(bucket|sum|count)$", "", plain))


def test_the_page_is_up_to_date() -> None:
    assert metrics_docs.main(["--check"]) == 0, f"run {metrics_docs.COMMAND}"


def test_a_page_that_is_out_of_date_is_noticed_and_mended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(metrics_docs, "PAGE", tmp_path / "metrics.md")
    assert [metrics_docs.main(["--check"]), metrics_docs.main([]), metrics_docs.main(["--check"])] == [1, 0, 0]


def test_every_metric_has_its_row() -> None:
    rows = re.findall(r"^\| `(manta_[a-z_]+)` \|", metrics_docs.page(), re.MULTILINE)
    assert sorted(rows) == sorted(EVERY)


def test_the_page_has_queries() -> None:
    assert len(QUERIES) >= 8


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_a_query_asks_for_metrics_and_labels_that_exist(query: str) -> None:
    series = [(name, declared(name)) for name in re.findall(r"ray_manta_[a-z_]+", query)]
    assert [name for name, metric in series if metric is None] == []
    known = {label for _, metric in series if metric is not None for label in metric.labels}
    if any(metric is not None and metric.kind == "histogram" for _, metric in series):
        known.add("le")
    if "ray_vllm_" in query:
        known |= OF_VLLM
    grouped = {label for labels in re.findall(r"(?:by|on) \(([a-z, ]+)\)", query) for label in labels.split(", ")}
    matched = set(re.findall(r"(\w+)(?:=~|!=|=)\"", query))
    assert grouped | matched <= known
    assert query.count("(") == query.count(")")


def test_what_is_said_to_be_vllms_is_vllms() -> None:
    found = importlib.util.find_spec("vllm")  # does not import it
    if found is None or found.origin is None:
        pytest.skip("vLLM is not installed")
    source = (Path(found.origin).parent / "v1" / "metrics" / "loggers.py").read_text(encoding="utf-8")
    named = set(re.findall(r"ray_(vllm_[a-z_]+)", metrics_docs.page())) - {"vllm_"}
    declared_there = {name.replace(":", "_") for name in re.findall(r'"(vllm:[a-z_]+)"', source)}
    assert {name for name in named if re.sub(r"_(total|bucket)$", "", name) not in declared_there} == set()
    assert len(named) >= 10
