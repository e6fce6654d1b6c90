"""Alerts and recording rules: promtool takes them, each alert fires when it should and not otherwise, and has a runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import CHART, Json, of_kind
from tests.chart.operations import FOLDER
from tests.promql import Place, filled, of_dashboard

pytestmark = pytest.mark.chart

CASES = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
DASHBOARDS = sorted(CHART.glob("files/dashboards/*.json"))
RUNBOOKS = (FOLDER / "runbooks.md").read_text(encoding="utf-8")
VARIABLES = {"namespace": ".*", "cluster": ".*", "model": ".*", "variant": ".*", "__rate_interval": "1m"}
PARTS = ("Means", "Impact", "Look first", "Likely causes", "Remedy")


def groups() -> list[Json]:
    (rule,) = of_kind("PrometheusRule", {"prometheusRule": {"enabled": True}})
    found: list[Json] = rule["spec"]["groups"]
    return found


def alerts() -> list[str]:
    return [rule["alert"] for group in groups() for rule in group["rules"] if "alert" in rule]


def cases() -> list[tuple[str, bool]]:
    """Return (alert, whether it is expected) of every look at an alert."""
    files = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in CASES]
    looks = [look for file in files for test in file["tests"] for look in test["alert_rule_test"]]
    return [(look["alertname"], bool(look["exp_alerts"])) for look in looks]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the rules as Prometheus reads them."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups()}), encoding="utf-8")
    return tmp_path


def promtool(*arguments: str, folder: Path) -> tuple[int, str]:
    """Return the exit code of promtool and what it said."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool (Debian's package prometheus)")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_prometheus_takes_the_rules(folder: Path) -> None:
    code, said = promtool("check", "rules", "--lint-fatal", "rules.yaml", folder=folder)
    assert code == 0, said


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_alerts_fire_and_stay_quiet(file: Path, folder: Path) -> None:
    shutil.copy(file, folder)
    code, said = promtool("test", "rules", file.name, folder=folder)
    assert code == 0, said


def test_every_alert_is_seen_to_fire_and_to_stay_quiet() -> None:
    seen = cases()
    assert [name for name in alerts() if (name, True) not in seen] == []
    assert [name for name in alerts() if (name, False) not in seen] == []
    assert {name for name, _ in seen} <= set(alerts())


def test_prometheus_takes_every_expression_of_the_dashboards(folder: Path) -> None:
    places: list[Place] = []
    for file in DASHBOARDS:
        places += of_dashboard(json.loads(file.read_text(encoding="utf-8")))
    rules = [{"record": f"panel:{number}", "expr": filled(place.expr, VARIABLES)} for number, place in enumerate(places)]
    (folder / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    code, said = promtool("check", "rules", "panels.yaml", folder=folder)
    assert (code, len(rules) > 90) == (0, True), said


def sections() -> dict[str, str]:
    found = re.split(r"^## (Manta\w+)$", RUNBOOKS, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert list(sections()) == alerts()


@pytest.mark.parametrize("name", sections())
def test_a_runbook_says_what_to_do(name: str) -> None:
    text = sections()[name]
    assert tuple(re.findall(r"^\*\*(.*?)\.\*\* \S", text, re.MULTILINE)) == PARTS
    assert re.search(r"^\*\*Look first\.\*\*[^`]*[^*]*\n\n```console\n\S", text, re.MULTILINE)


def test_an_alert_leads_to_its_runbook() -> None:
    rules = [rule for group in groups() for rule in group["rules"] if "alert" in rule]
    urls = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules}
    assert urls == {name: f"docs/operations/runbooks.md#{name.lower()}" for name in alerts()}
    values = {"prometheusRule": {"enabled": True, "runbooks": "https://wiki.example.org/manta"}}
    (rule,) = of_kind("PrometheusRule", values)
    last = rule["spec"]["groups"][-1]["rules"][-1]
    assert last["annotations"]["runbook_url"] == "https://wiki.example.org/manta#mantaroutersgone"
