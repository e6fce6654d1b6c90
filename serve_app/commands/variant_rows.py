"""The figures of every variant, as `manta status` and `manta top` show them; the console makes its rows alike."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from serve_app.commands.client import get_json
from serve_app.errors import CommandError
from serve_app.rollout.gathering import LONG_S

Json = Mapping[str, Any]
STATUS = "/admin/status"
EXTRA = ("rollouts", "scaling")  # Rollouts tells these; Routers tell the rest also while it is away


@dataclass(frozen=True, slots=True)
class Documents:
    """What the admin API said at one time. ``problems`` says why something is missing."""

    status: Json
    rollouts: Json | None = None
    scaling: Json | None = None
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class VariantRow:
    """One variant of a model; None where nobody knows the figure."""

    model: str
    variant: str
    engine: str
    weight: int
    declared_weight: int
    replicas: str  # in words, by state
    ready: int
    wanted: int | None  # ready replicas that there should be
    queue: int  # requests that wait: in engines, and in Routers where Rollouts is there to tell
    running: int
    requests_per_s: float | None  # this and what follows over the last minute
    tokens_per_s: float | None
    error_ratio: float | None
    ttft_p95_s: float | None
    kv_cache_ratio: float


def look(client: httpx.Client) -> Documents:
    """Return the documents. Raises CommandError when there is no status."""
    status = get_json(client, STATUS)
    found: dict[str, Json] = {}
    problems = []
    for name in EXTRA:
        try:
            found[name] = get_json(client, f"/admin/{name}")
        except CommandError as err:
            problems.append(f"{name} cannot be read: {err}")
    return Documents(status, found.get("rollouts"), found.get("scaling"), problems)


def variant_rows(documents: Documents) -> list[VariantRow]:
    """Return a row for each variant, in the order in which they are declared."""
    apps = {app["name"]: app for app in (documents.scaling or {"apps": ()})["apps"]}
    stats = (documents.rollouts or {"stats": ()})["stats"]
    counted = {(each["name"], each["variant"]): each["last_minute"] for each in stats}
    return [
        _row(model["name"], variant, app=apps.get(f"llm.{model['name']}.{variant['name']}"), counted=counted)
        for model in documents.status["models"]
        for variant in model["variants"]
    ]


def _row(model: str, variant: Json, *, app: Json | None, counted: Mapping[tuple[str, str], Json]) -> VariantRow:
    last = counted.get((model, variant["name"]))
    return VariantRow(
        model=model,
        variant=variant["name"],
        engine=variant["engine"],
        weight=variant["weight"],
        declared_weight=variant["declared_weight"],
        replicas=_states(variant),
        ready=variant["replicas"]["ready"],
        wanted=_wanted(app),
        queue=variant["queue_depth"] + (0 if app is None else app["held"]),
        running=variant["running"],
        requests_per_s=None if last is None else last["requests"] / LONG_S,
        tokens_per_s=None if last is None else last["tokens"] / LONG_S,
        error_ratio=None if last is None else last["error_rate"],
        ttft_p95_s=None if last is None else last["ttft_s"]["p95"],
        kv_cache_ratio=variant["kv_cache_usage_ratio"],
    )


def _wanted(app: Json | None) -> int | None:
    if app is None:
        return None
    if app["is_fixed"]:
        return int(app["settings"]["min_replicas"])
    return None if app["decision"] is None else int(app["decision"]["target"])


def _states(variant: Json) -> str:
    return (
        ", ".join(f"{count} {state}{_phases(variant, state)}" for state, count in variant["replicas"].items() if count) or "0"
    )


def _phases(variant: Json, state: str) -> str:
    """Return what the replicas of a state do, where they say it."""
    found = Counter(each["phase"] for each in variant["replicas_detail"] if each["state"] == state and each["phase"])
    return f" ({', '.join(f'{count} {phase}' for phase, count in sorted(found.items()))})" if found else ""


def total(rows: Sequence[VariantRow], figure: str) -> float | None:
    """Return the sum of a figure, or None where it is unknown of a row."""
    if figure not in {field.name for field in dataclasses.fields(VariantRow)}:
        raise ValueError(f"rows have no figure {figure!r}")
    values = [getattr(row, figure) for row in rows]
    return None if None in values else sum(values)


def count(value: float | None) -> str:
    """Return a figure with three digits or more."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def ready_of(row: VariantRow) -> str:
    """Return how many replicas are ready, and how many there should be."""
    return f"{row.ready}/{count(row.wanted)}"
