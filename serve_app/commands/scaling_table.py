"""What `manta scaling` shows: a line per deployment, and the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from serve_app.commands.rollout_tables import span

Json = Mapping[str, Any]
UNKNOWN = "-"


def table(apps: Sequence[Json], *, now_s: float) -> Table:
    """Return one line per application of a document of GET /admin/scaling; ``now_s`` is of the wall clock."""
    made = Table("deployment")
    for name in ("ready/target", "bounds", "waiting", "held", "running/slots"):
        made.add_column(name, justify="right")
    made.add_column("reason")
    made.add_column("age", justify="right")
    for app in apps:
        made.add_row(app["name"], *_counts(app), Text(_reason(app)), _age(app["decision"], now_s))
    return made


def budget(document: Json) -> Text:
    """Return how many accelerators are in use, in words."""
    most, in_use = document["max_accelerators"], document["in_use"]
    if most is None:
        return Text(f"accelerators: {in_use} in use, no limit")
    return Text(f"accelerators: {in_use} of {most} in use", style="bold red" if in_use >= most else "")


def _counts(app: Json) -> tuple[str, str, str, str, str]:
    made, settings = app["decision"], app["settings"]
    fewest, most = settings["min_replicas"], settings["max_replicas"]
    if app["is_fixed"]:
        return f"{UNKNOWN}/{fewest}", str(fewest), UNKNOWN, str(app["held"]), UNKNOWN
    bounds, held = f"{fewest}-{most}", str(app["held"])
    if made is None:
        return f"{UNKNOWN}/{UNKNOWN}", bounds, UNKNOWN, held, UNKNOWN
    ready, slots = made.get("ready"), made.get("slots")
    capacity = UNKNOWN if not slots or ready is None else f"{slots * ready:g}"
    replicas = f"{_number(ready)}/{_number(made.get('target'))}"
    return replicas, bounds, _number(made.get("waiting")), held, f"{_number(made.get('running'))}/{capacity}"


def _reason(app: Json) -> str:
    """Return why there should be so many, and what the budget has left out."""
    if app["is_fixed"]:
        return "fixed"
    if (made := app["decision"]) is None:
        return "nothing was decided yet"
    reason, granted, wanted = str(made.get("reason", "")), made.get("granted"), made.get("wanted")
    if granted is None or wanted is None or granted >= wanted:
        return reason
    return f"{reason}; the budget grants {granted} of {wanted}"


def _age(made: Json | None, now_s: float) -> str:
    return UNKNOWN if made is None or made.get("at") is None else span(now_s - made["at"])


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}"
