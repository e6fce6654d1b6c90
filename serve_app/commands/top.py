"""`manta top`: a line per variant with what it does right now, the busiest first, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from serve_app.commands.client import connect
from serve_app.commands.rollout_tables import ms, percent
from serve_app.commands.sort_by import SortBy
from serve_app.commands.status import share
from serve_app.commands.variant_rows import Documents, VariantRow, count, look, ready_of, total, variant_rows
from serve_app.commands.watching import keep_showing

UNKNOWN = -1.0  # below every figure


FIGURE: Mapping[SortBy, Callable[[VariantRow], float | None]] = MappingProxyType(
    {
        SortBy.WEIGHT: lambda row: row.weight,
        SortBy.READY: lambda row: row.ready,
        SortBy.QUEUE: lambda row: row.queue,
        SortBy.RUNNING: lambda row: row.running,
        SortBy.REQUESTS: lambda row: row.requests_per_s,
        SortBy.TOKENS: lambda row: row.tokens_per_s,
        SortBy.ERRORS: lambda row: row.error_ratio,
        SortBy.TTFT: lambda row: row.ttft_p95_s,
        SortBy.CACHE: lambda row: row.kv_cache_ratio,
    }
)


def run(*, url: str, sort: SortBy, once: bool, interval_s: float) -> None:
    """Keep showing the variants, or show them once. Raises CommandError when the platform does not answer."""
    with connect(url) as client:

        def again() -> Group:
            return shown(look(client), sort=sort, now_s=time.time())

        if once:
            Console().print(again())
        else:
            keep_showing(again, console=Console(), every_s=interval_s, is_whole=True)


def shown(documents: Documents, *, sort: SortBy, now_s: float) -> Group:
    """Return the totals, the table, and what is to be said beside them; ``now_s`` is of the wall clock."""
    rows = variant_rows(documents)
    problems = [Text(problem, style="bold red") for problem in documents.problems]
    return Group(Text(headline(documents.status, rows, now_s=now_s)), table(ordered(rows, sort)), *problems)


def headline(status: Mapping[str, Any], rows: Sequence[VariantRow], *, now_s: float) -> str:
    """Return the figures of all variants together, in words."""
    up = sum(app["status"] == "RUNNING" for app in status["apps"])
    at = time.strftime("%H:%M:%S", time.localtime(now_s))
    figures = {
        name: count(total(rows, name)) for name in ("ready", "wanted", "queue", "running", "requests_per_s", "tokens_per_s")
    }
    return (
        f"{at}  applications {up}/{len(status['apps'])}  replicas {figures['ready']}/{figures['wanted']}  "
        f"queue {figures['queue']}  running {figures['running']}  "
        f"{figures['requests_per_s']} requests/s  {figures['tokens_per_s']} tokens/s"
    )


def ordered(rows: Sequence[VariantRow], sort: SortBy) -> list[VariantRow]:
    """Return the rows in order; those of equal figures by their names."""
    by_name = sorted(rows, key=lambda row: (row.model, row.variant))
    if sort is SortBy.NAME:
        return by_name
    figure = FIGURE[sort]
    return sorted(by_name, key=lambda row: UNKNOWN if (value := figure(row)) is None else value, reverse=True)


def table(rows: Sequence[VariantRow]) -> Table:
    """Return one line per variant."""
    # Short, so that everything fits into 80 columns.
    made = Table("model", "variant", box=None, header_style="bold reverse", padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("weight", "ready", "queue", "run", "req/s", "tok/s", "err %", "TTFT ms", "KV %"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        load = (ready_of(row), str(row.queue), str(row.running), count(row.requests_per_s), count(row.tokens_per_s))
        rest = (percent(row.error_ratio), ms(row.ttft_p95_s), f"{100 * row.kv_cache_ratio:.0f}")
        style = "bold red" if row.weight and not row.ready and row.wanted != 0 else None
        made.add_row(row.model, row.variant, share(row.weight, row.declared_weight), *load, *rest, style=style)
    return made
