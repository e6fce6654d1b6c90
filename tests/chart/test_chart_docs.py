"""Pages about the chart: generated ones are current, and what the README shows can be installed."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from helm_python import lint, values_from_yaml

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


def test_the_chart_says_what_it_is_and_nothing_that_nobody_can_check() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    kind, _, data = about["icon"].partition(",")
    assert kind == "data:image/svg+xml;base64"  # a picture, and no address
    assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")  # noqa: S314  (our own)
    assert about["annotations"]["artifacthub.io/license"] in (CHART.parents[1] / "README.md").read_text(encoding="utf-8")
    assert not {"home", "sources", "maintainers"} & about.keys()
    messages = [message for message in lint(CHART, {}, namespace="ml")["messages"] if "NOTES" not in str(message)]
    assert [message for message in messages if "icon" in str(message).lower()] == []


@pytest.mark.parametrize("text", [README, chart_docs.page()], ids=["readme", "charts-readme"])
def test_readmes_wait_before_they_test_and_say_what_was_never_run(text: str) -> None:
    installed, waited, tested = (
        text.index(words)
        for words in (
            "helm install manta ./helm/manta -f my-values.yaml\n",
            "kubectl wait --for=condition=Ready rayservice/manta --timeout=30m\n",
            "helm test manta --logs --timeout 10m\n",
        )
    )
    assert installed < waited < tested
    assert "docs/operations/install.md#what-was-run-and-what-never-was" in text


def test_the_charts_readme_leads_to_the_table_of_upgrades() -> None:
    assert "(../../docs/operations/upgrades.md#what-an-edit-does)" in chart_docs.page()


def test_secrets_that_the_readme_makes_are_those_that_pods_read() -> None:
    made = set(re.findall(r"create secret generic (\S+)", README))
    assert made == {"manta-internal-token", "manta-api-keys", "manta-test-key"}
    text = str(of_kind("RayService", {})) + str(of_kind("Pod", {}))
    assert [name for name in sorted(made) if name not in text] == []


@pytest.mark.parametrize("file", CI_FILES, ids=lambda file: file.stem)
def test_an_example_says_what_it_is_for(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"# [A-Z].*\.", first)
