"""`manta status`: applications, replicas, queue depth, variants and weights, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from serve_app.commands.client import connect
from serve_app.commands.rollout_tables import in_force, ms, percent
from serve_app.commands.variant_rows import Documents, VariantRow, count, look, ready_of, variant_rows
from serve_app.commands.watching import keep_showing


def run(*, url: str, watch: bool = False, interval_s: float = 2.0) -> None:
    """Print the tables, or keep showing them. Raises CommandError when the platform does not answer."""
    with connect(url) as client:
        if watch:
            keep_showing(lambda: Group(*tables(look(client))), console=Console(), every_s=interval_s)
        else:
            Console().print(*tables(look(client)), sep="\n")


def tables(documents: Documents) -> Iterator[RenderableType]:
    """Yield the tables that have lines, and what is to be said beside them."""
    report = documents.status
    yield applications(report)
    rows = variant_rows(documents)
    yield variants(rows)
    if documents.rollouts is not None:
        yield rates(rows)
    if any(model.get("adapters") for model in report["models"]):
        yield adapters(report)
    yield pipelines(report)
    yield Text(f"requests waiting in the Router: {report['waiting_in_router']}")
    if documents.rollouts is not None:
        yield Text(in_force(documents.rollouts))
    for problem in documents.problems:
        yield Text(problem, style="bold red")


def applications(report: Mapping[str, Any]) -> Table:
    """Return one line per Serve application."""
    table = Table("application", "status", "replicas", "message", title="applications")
    for app in report["apps"]:
        states = [f"{number} {state.lower()}" for d in app["deployments"].values() for state, number in d.items()]
        message = app["message"].strip().rpartition("\n")[2]
        table.add_row(app["name"], app["status"], ", ".join(states) or "0", message)
    return table


def variants(rows: Sequence[VariantRow]) -> Table:
    """Return one line per model variant."""
    table = Table("model", "variant", "weight %", "engine", "replicas", title="variants")
    for name in ("queue depth", "running", "KV cache %"):
        table.add_column(name, justify="right")
    for row in rows:
        numbers = (str(row.queue), str(row.running), f"{100 * row.kv_cache_ratio:.0f}")
        table.add_row(row.model, row.variant, share(row.weight, row.declared_weight), row.engine, row.replicas, *numbers)
    return table


def rates(rows: Sequence[VariantRow]) -> Table:
    """Return what each variant did in the last minute, and how many of its replicas could do it."""
    table = Table("model", "variant", title="last minute")
    for name in ("ready", "requests/s", "tokens/s", "errors %", "TTFT p95 ms"):
        table.add_column(name, justify="right")
    for row in rows:
        times = (count(row.requests_per_s), count(row.tokens_per_s), percent(row.error_ratio), ms(row.ttft_p95_s))
        table.add_row(row.model, row.variant, ready_of(row), *times)
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


def pipelines(report: Mapping[str, Any]) -> Table:
    """Return one line per pipeline version."""
    table = Table("pipeline", "version", "weight %", "embedder", "collection", "model", title="pipelines")
    for pipeline in report["pipelines"]:
        for v in pipeline["versions"]:
            table.add_row(pipeline["name"], v["name"], weight(v), v["embedder"], v["collection"], v["model"])
    return table


def weight(split: Mapping[str, Any]) -> str:
    """Return the weight of a version as ``share`` does."""
    return share(split["weight"], split["declared_weight"])


def share(now: int, declared: int) -> str:
    """Return the weight in force, and in parentheses the declared one where a rollout has moved it."""
    return str(now) if now == declared else f"{now} ({declared})"
