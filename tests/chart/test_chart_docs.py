"""Pages about the chart: generated ones are current, and what the README shows can be installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helm_python import values_from_yaml

from scripts import chart_docs
from scripts.chart_values import CHART, documented, leaves
from tests.chart.helm import CI_FILES, of_kind, refusal, serve_config

pytestmark = pytest.mark.chart

README = (CHART.parents[1] / "README.md").read_text(encoding="utf-8")


def example() -> str:
    (found,) = re.findall(r"^```yaml my-values.yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_charts_readme_is_what_the_script_writes() -> None:
    assert chart_docs.main(["--check"]) == 0


def test_the_table_has_every_value() -> None:
    table = re.findall(r"^\| `([\w.]+)`", chart_docs.page(), re.MULTILINE)
    assert table == [value.name for value in leaves(documented())]


def test_the_readmes_values_are_short_and_can_be_installed() -> None:
    assert len(example().splitlines()) < 30
    values = values_from_yaml(example())
    assert refusal(values) == ""
    assert [app["name"] for app in serve_config(values)["applications"]] == [
        "rollouts",
        "embedder.minilm",
        "llm.chat.stable",
        "retriever",
        "limits",
        "router",
    ]
    assert len(of_kind("RayService", values)) == 1


def test_secrets_that_the_readme_makes_are_those_that_pods_read() -> None:
    made = set(re.findall(r"create secret generic (\S+)", README))
    assert made == {"manta-internal-token", "manta-api-keys", "manta-test-key"}
    text = str(of_kind("RayService", {})) + str(of_kind("Pod", {}))
    assert [name for name in sorted(made) if name not in text] == []


@pytest.mark.parametrize("file", CI_FILES, ids=lambda file: file.stem)
def test_an_example_says_what_it_is_for(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"# [A-Z].*\.", first)
