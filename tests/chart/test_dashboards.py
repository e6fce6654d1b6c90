"""Grafana's dashboards: made from the boards in scripts/, whole, and laid out so that nothing hides anything."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from scripts import dashboards
from tests.chart.helm import Json, of_kind
from tests.promql import filled, of_dashboard

pytestmark = pytest.mark.chart

FILES = sorted(dashboards.FOLDER.glob("*.json"))
each_board = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
# Of Grafana's units, those that panels have; a wrong one is shown as text behind the number.
UNITS = {"reqps", "cps", "percentunit", "percent", "s", "ms", "bytes", "Bps", "short"}
VARIABLES = {"namespace": ".*", "cluster": ".*", "model": ".*", "variant": ".*", "__rate_interval": "1m"}


def read(file: Path) -> Json:
    board: Json = json.loads(file.read_text(encoding="utf-8"))
    return board


def panels(board: Json) -> list[Json]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_dashboards_are_what_the_script_writes() -> None:
    assert dashboards.main(["--check"]) == 0, f"run {dashboards.COMMAND}"
    assert [file.stem for file in FILES] == sorted(file.stem for file in dashboards.BOARDS.glob("*.yaml"))


def test_there_is_a_board_for_every_question() -> None:
    assert [file.stem for file in FILES] == ["autoscaling", "canary", "capacity", "model", "overview", "rag"]


def test_a_board_that_is_out_of_date_is_noticed_and_mended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dashboards, "FOLDER", tmp_path)
    assert [dashboards.main(["--check"]), dashboards.main([]), dashboards.main(["--check"])] == [1, 0, 0]


def test_a_typo_in_a_board_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "board.yaml"
    file.write_text("{title: T, description: D, sektions: []}", encoding="utf-8")
    with pytest.raises(ValidationError, match="sektions"):
        dashboards.board_of(file)


@each_board
def test_a_dashboard_has_what_grafana_needs(file: Path) -> None:
    board = read(file)
    assert (board["uid"], board["schemaVersion"], board["tags"]) == (f"manta-{file.stem}", 39, ["manta"])
    assert board["title"].startswith("Manta / ")
    ids = [panel["id"] for panel in board["panels"]]
    assert ids == list(range(1, len(ids) + 1))
    assert len(panels(board)) >= 12


@each_board
def test_a_panel_says_what_it_shows(file: Path) -> None:
    board = read(file)
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        assert re.fullmatch(r"[A-Z].*\.", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["datasource"] == dashboards.SOURCE
        assert all(target["legendFormat"] and target["expr"] for target in panel["targets"]), panel["title"]


@each_board
def test_legends_name_labels_that_the_query_keeps(file: Path) -> None:
    for panel in panels(read(file)):
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = set(", ".join(re.findall(r"by \(([^)]*)\)", target["expr"])).split(", "))
            assert named <= kept, (panel["title"], target["expr"])


@each_board
def test_thresholds_grow(file: Path) -> None:
    for panel in panels(read(file)):
        steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert steps[0] is None
        assert steps[1:] == sorted(steps[1:]), panel["title"]


@each_board
def test_no_panel_lies_over_another_or_beside_the_board(file: Path) -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in read(file)["panels"]]
    for title, at in places:
        assert at["x"] >= 0, title
        assert at["x"] + at["w"] <= dashboards.COLUMNS, title
    for (title, one), (other, two) in itertools.combinations(places, 2):
        apart_in_x = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        apart_in_y = one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
        assert apart_in_x or apart_in_y, f"{title} and {other}"


@each_board
def test_a_board_can_be_narrowed_down_and_works_without_the_labels_of_kubernetes(file: Path) -> None:
    board = read(file)
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert list(variables)[:3] == ["datasource", "namespace", "cluster"]
    for name in ("namespace", "cluster"):
        assert (variables[name]["allValue"], variables[name]["current"]["value"]) == (".*", "$__all")
    for place in of_dashboard(board):
        assert "$" not in filled(place.expr, VARIABLES), place
    used = set(re.findall(r"\$(\w+)", " ".join(target["expr"] for panel in panels(board) for target in panel["targets"])))
    assert used - {"__rate_interval"} == set(variables) - {"datasource"}


@each_board
def test_every_selector_is_narrowed_down(file: Path) -> None:
    for target in (target for panel in panels(read(file)) for target in panel["targets"]):
        selectors = re.findall(r"\{([^}]*)\}", target["expr"])
        assert selectors, target
        assert all(dashboards.SCOPE in selector for selector in selectors), target


@each_board
def test_descriptions_name_alerts_that_exist(file: Path) -> None:
    (rule,) = of_kind("PrometheusRule", {"prometheusRule": {"enabled": True}})
    alerts = {each.get("alert") for group in rule["spec"]["groups"] for each in group["rules"]}
    named = re.findall(r"\bManta[A-Z]\w+", " ".join(panel["description"] for panel in panels(read(file))))
    assert set(named) <= alerts
