"""Writes the table of docs/operations/upgrades.md: every edit of scripts/chart_upgrades.yaml, rendered and classified.

python -m scripts.chart_upgrades           rewrite the table
python -m scripts.chart_upgrades --check   exit with 1 when the page is out of date
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from scripts.chart_effects import Cluster, Effect, effect
from scripts.generated import settle

if TYPE_CHECKING:
    from helm_python import Chart

ROOT = Path(__file__).resolve().parent.parent
CHART, PAGE = ROOT / "helm" / "manta", ROOT / "docs" / "operations" / "upgrades.md"
DATA = Path(__file__).with_name("chart_upgrades.yaml")
COMMAND = "python -m scripts.chart_upgrades"
BEGIN, END = f"<!-- table: {COMMAND} -->", "<!-- end of table -->"
HEAD = "| edit | cluster | Serve |\n|---|---|---|"
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Edit:
    """A row: edits of a running installation that do the same; the first stands for all."""

    title: str
    alternatives: tuple[Mapping[str, Any], ...]
    chart_version: str | None = None

    def effects(self) -> Iterator[Effect]:
        """Yield what each of them does, told from what Helm renders before and after it."""
        for sets in self.alternatives:
            yield effect(_base_objects(), rendered(with_set(base(), sets), chart_version=self.chart_version))


@dataclass(frozen=True, slots=True)
class Group:
    """Edits that do the same."""

    promise: str
    title: str
    says: str
    edits: tuple[Edit, ...]


def groups() -> tuple[Group, ...]:
    """Return the groups of edits, in the order of the page."""
    return tuple(
        Group(each["promise"], each["title"], each["says"].strip(), tuple(_edit(edit) for edit in each["edits"]))
        for each in _data()["groups"]
    )


def _edit(data: Json) -> Edit:
    sets = data["set"] if isinstance(data["set"], list) else [data["set"]]
    return Edit(data["edit"], tuple(sets), data.get("chart_version"))


def base() -> Json:
    """Return the values of the installation that is edited."""
    found: Json = _data()["base"]
    return found


@functools.cache
def _data() -> Json:
    found: Json = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    return found


def with_set(values: Json, sets: Mapping[str, Any]) -> Json:
    """Return values with others at paths such as ``models[0].weight``, as `helm upgrade -f FILE --set` does; None removes."""
    made: Json = json.loads(json.dumps(values))  # parts that are one object here, as by a YAML alias, are two for Helm
    for path, value in sets.items():
        steps: list[str | int] = [name or int(index) for name, index in _STEP.findall(path)]
        at: Any = made
        for step, following in itertools.pairwise(steps):
            at = _entered(at, step, [] if isinstance(following, int) else {})
        _put(at, steps[-1], value)
    return made


def _entered(at: Any, step: str | int, empty: Any) -> Any:
    if isinstance(step, int):
        return at[step]
    if at.get(step) is None:
        at[step] = empty
    return at[step]


def _put(at: Any, step: str | int, value: Any) -> None:
    if value is None:
        del at[step]
    elif isinstance(step, int) and step == len(at):
        at.append(value)
    else:
        at[step] = value


def rendered(values: Json, *, chart_version: str | None = None) -> list[Json]:
    """Return the chart's objects as Helm renders them, of another version of the chart where one is named."""
    from helm_python import Chart, package

    if chart_version is None:
        return list(_objects(_chart().render(values, name="demo", namespace="ml")))
    with tempfile.TemporaryDirectory() as folder:
        archive = package(CHART, destination=folder, version=chart_version)
        return list(_objects(Chart.load(archive).render(values, name="demo", namespace="ml")))


@functools.cache
def _base_objects() -> list[Json]:
    return rendered(base())


@functools.cache
def _chart() -> Chart:
    from helm_python import Chart

    return Chart.load(CHART)


def _objects(files: Mapping[str, str]) -> Iterator[Json]:
    for path in sorted(files):
        if not path.endswith("NOTES.txt"):
            yield from (each for each in yaml.load_all(files[path], yaml.CSafeLoader) if each)


def promise_of(found: Effect) -> str:
    """Return the group that an effect belongs to."""
    if found.cluster in (Cluster.REPLACED, Cluster.STALE):
        return "new_cluster"
    if found.serve.restarted:
        return "restarts"
    if found.serve.removed:
        return "stops"
    if found.cluster is Cluster.GROWS:
        return "grows"
    return "late" if found.late else "in_place"


def table() -> str:
    """Return the tables of the page, one for each group."""
    return "\n\n".join(_section(group) for group in groups())


def _section(group: Group) -> str:
    rows = "\n".join(_row(edit, next(edit.effects())) for edit in group.edits)
    return f"### {group.title}\n\n{group.says}\n\n{HEAD}\n{rows}"


def _row(edit: Edit, found: Effect) -> str:
    return f"| {edit.title} | {_cluster(found)} | {_serve(found)} |"


def _cluster(found: Effect) -> str:
    if found.cluster is Cluster.KEPT:
        late = ", ".join(f"`{field}`" for field in found.late)
        return f"stays; later: {late}" if late else "stays"
    return {Cluster.GROWS: "grows", Cluster.REPLACED: "second cluster", Cluster.STALE: "stays as it was"}[found.cluster]


def _serve(found: Effect) -> str:
    if found.cluster is Cluster.REPLACED:
        return "starts there anew" + (", with the new configuration" if found.serve.is_changed else "")
    if not found.serve.is_changed:
        return "gets nothing new"
    words = {
        "starts": found.serve.added,
        "stops": found.serve.removed,
        "restarts": found.serve.restarted,
        "in place": found.serve.in_place,
    }
    return "; ".join(f"{what}: {', '.join(f'`{name}`' for name in names)}" for what, names in words.items() if names)


def page(text: str) -> str:
    """Return the page with its tables written anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main(arguments: list[str]) -> int:
    """Write the table, or compare it; return the exit code."""
    return settle(PAGE, page(PAGE.read_text(encoding="utf-8")), command=COMMAND, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
