"""Writes helm/manta/files/dashboards/*.json, Grafana's form of the boards in scripts/boards/*.yaml.

python -m scripts.dashboards           rewrite the files
python -m scripts.dashboards --check   exit with 1 when one is out of date

In an expression of a board `$scope` stands for the labels of the release that is looked at, `$model` for these and the
model, `$variant` for these and the variant.
"""

from __future__ import annotations

import json
import re
import string
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from scripts.chart_values import CHART
from scripts.generated import settle

BOARDS = Path(__file__).with_name("boards")
FOLDER = CHART / "files" / "dashboards"
COMMAND = "python -m scripts.dashboards"
COLUMNS, HEIGHT, ROW_HEIGHT = 24, 8, 1
ALL = ".*"  # also fits a label that is missing, as outside of Kubernetes
SCOPE = 'namespace=~"$namespace", ray_io_cluster=~"$cluster"'
MODEL = f'{SCOPE}, model=~"$model"'
LABELS = {"scope": SCOPE, "model": MODEL, "variant": f'{MODEL}, variant=~"$variant"'}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
LINK = {"type": "dashboards", "title": "Manta", "tags": ["manta"], "asDropdown": True, "keepTime": True, "includeVars": True}
Json = dict[str, Any]


class Part(BaseModel):
    """A part of a board's file; a typo is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Query(Part):
    """One expression, and what its series are called."""

    expr: str
    legend: str


class Panel(Part):
    """One panel. ``warn`` and ``alarm`` are where its colours change."""

    title: str
    description: str
    queries: tuple[Query, ...] = Field(min_length=1)
    unit: str = "short"
    kind: Literal["timeseries", "stat", "state-timeline"] = "timeseries"
    width: Annotated[int, Field(ge=3, le=COLUMNS)] = 8
    height: int = HEIGHT
    stacked: bool = False
    min: float = 0
    max: float | None = None
    warn: float | None = None
    alarm: float | None = None


class Section(Part):
    """Panels under one headline."""

    title: str
    panels: tuple[Panel, ...] = Field(min_length=1)


class Board(Part):
    """A board. ``variables``: those it has besides the release's, each with the series that it finds its values in."""

    title: str
    description: str
    variables: dict[Literal["model", "variant"], str] = {}
    sections: tuple[Section, ...]


def board_of(file: Path) -> Board:
    """Return the board of a file. Raises ValidationError for what is no board."""
    return Board.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))


def dashboard(name: str, board: Board) -> Json:
    """Return a board as Grafana takes it."""
    return {
        "uid": f"manta-{name}",
        "title": f"Manta / {board.title}",
        "description": board.description,
        "tags": ["manta"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "editable": True,
        "graphTooltip": 1,
        "links": [LINK],
        "templating": {"list": list(_variables(board))},
        "panels": list(_placed(board.sections)),
    }


def filled(expression: str) -> str:
    """Return an expression with the labels that its words in `{$...}` stand for."""
    return re.sub(r"\{\$(scope|model|variant)\b", lambda found: "{" + LABELS[found[1]], " ".join(expression.split()))


def _variables(board: Board) -> Iterator[Json]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    yield _variable("namespace", "Namespace", "label_values(ray_serve_controller_num_control_loops, namespace)")
    in_namespace = 'ray_serve_controller_num_control_loops{namespace=~"$namespace"}'
    yield _variable("cluster", "Ray cluster", f"label_values({in_namespace}, ray_io_cluster)")
    for name, series in board.variables.items():
        yield _variable(name, name.capitalize(), f"label_values({filled(series)}, {name})")


def _variable(name: str, label: str, query: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ALL,
        "current": {"text": "All", "value": "$__all"},
    }


def _placed(sections: Iterable[Section]) -> Iterator[Json]:
    """Yield rows and panels from left to right and from top to bottom, none over another."""
    number, top = 1, 0
    for section in sections:
        grid = {"h": ROW_HEIGHT, "w": COLUMNS, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": section.title, "collapsed": False, "gridPos": grid, "panels": []}
        number, top = number + 1, top + ROW_HEIGHT
        left = tallest = 0
        for panel in section.panels:
            if left + panel.width > COLUMNS:
                left, top, tallest = 0, top + tallest, 0
            yield _panel(panel, number, grid={"h": panel.height, "w": panel.width, "x": left, "y": top})
            number, left, tallest = number + 1, left + panel.width, max(tallest, panel.height)
        top += tallest


def _panel(panel: Panel, number: int, *, grid: Json) -> Json:
    targets = [
        {"refId": letter, "datasource": SOURCE, "expr": filled(query.expr), "legendFormat": query.legend}
        for letter, query in zip(string.ascii_uppercase, panel.queries, strict=False)
    ]
    return {
        "id": number,
        "title": panel.title,
        "description": panel.description,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": grid,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        "targets": targets,
    }


def _defaults(panel: Panel) -> Json:
    colours = zip(("yellow", "red"), (panel.warn, panel.alarm), strict=True)
    steps = [{"color": "green", "value": None}, *({"color": colour, "value": at} for colour, at in colours if at is not None)]
    made: Json = {"unit": panel.unit, "min": panel.min, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.max is not None:
        made["max"] = panel.max
    if panel.kind == "timeseries":
        made["custom"] = {
            "fillOpacity": 30 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "off" if len(steps) == 1 else "dashed"},
            "showPoints": "never",
        }
    return made


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def main(arguments: list[str]) -> int:
    """Write every file, or compare them; return the exit code, 1 where one is out of date."""
    codes = []
    for file in sorted(BOARDS.glob("*.yaml")):
        text = json.dumps(dashboard(file.stem, board_of(file)), indent=1, ensure_ascii=False) + "\n"
        codes.append(settle(FOLDER / f"{file.stem}.json", text, command=COMMAND, arguments=arguments))
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
