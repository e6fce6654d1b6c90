"""`manta status`: applications, replicas, queue depth, variants and weights, as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from serve_app.commands.client import connect, get_json


def run(*, url: str) -> None:
    """Print the tables. Raises CommandError when the platform does not answer."""
    with connect(url) as client:
        report = get_json(client, "/admin/status")
    console = Console()
    console.print(applications(report))
    console.print(variants(report))
    if any(model.get("adapters") for model in report["models"]):
        console.print(adapters(report))
    console.print(pipelines(report))
    console.print(f"requests waiting in the Router: {report['waiting_in_router']}")


def applications(report: Mapping[str, Any]) -> Table:
    """Return one line per Serve application."""
    table = Table("application", "status", "replicas", "message", title="applications")
    for app in report["apps"]:
        states = [f"{count} {state.lower()}" for d in app["deployments"].values() for state, count in d.items()]
        message = app["message"].strip().rpartition("\n")[2]
        table.add_row(app["name"], app["status"], ", ".join(states) or "0", message)
    return table


def variants(report: Mapping[str, Any]) -> Table:
    """Return one line per model variant."""
    table = Table("model", "variant", "weight %", "engine", "replicas", title="variants")
    for name in ("queue depth", "running", "KV cache %"):
        table.add_column(name, justify="right")
    for model in report["models"]:
        for v in model["variants"]:
            states = ", ".join(f"{count} {state}{_phases(v, state)}" for state, count in v["replicas"].items() if count) or "0"
            numbers = (str(v["queue_depth"]), str(v["running"]), f"{100 * v['kv_cache_usage_ratio']:.0f}")
            table.add_row(model["name"], v["name"], weight(v), v["engine"], states, *numbers)
    return table


def adapters(report: Mapping[str, Any]) -> Table:
    """Return one line per version of an adapter."""
    table = Table("adapter", "version", "weight %", "source", title="adapters")
    table.add_column("loaded in replicas", justify="right")
    for model in report["models"]:
        for adapter in model.get("adapters", ()):
            for v in adapter["versions"]:
                table.add_row(adapter["name"], v["name"], weight(v), v["source"], str(v["loaded_replicas"]))
    return table


def _phases(variant: Mapping[str, Any], state: str) -> str:
    """Return what the replicas of a state do, where they say it."""
    found = Counter(each["phase"] for each in variant["replicas_detail"] if each["state"] == state and each["phase"])
    return f" ({', '.join(f'{count} {phase}' for phase, count in sorted(found.items()))})" if found else ""


def pipelines(report: Mapping[str, Any]) -> Table:
    """Return one line per pipeline version."""
    table = Table("pipeline", "version", "weight %", "embedder", "collection", "model", title="pipelines")
    for pipeline in report["pipelines"]:
        for v in pipeline["versions"]:
            table.add_row(pipeline["name"], v["name"], weight(v), v["embedder"], v["collection"], v["model"])
    return table


def weight(share: Mapping[str, Any]) -> str:
    """Return the weight in force, and in parentheses the declared one where a rollout has moved it."""
    now, declared = share["weight"], share["declared_weight"]
    return str(now) if now == declared else f"{now} ({declared})"
