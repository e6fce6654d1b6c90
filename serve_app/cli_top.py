"""`manta top`: its options; what it does is in serve_app/commands/top.py."""

from __future__ import annotations

from typing import Annotated

import typer

from serve_app.cli_options import DEFAULT_URL, Interval, Url
from serve_app.commands.sort_by import SortBy


def top(
    sort: Annotated[SortBy, typer.Option(help="What the lines are ordered by.")] = SortBy.QUEUE,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    interval: Interval = 2.0,
    url: Url = DEFAULT_URL,
) -> None:
    """Show what every variant does right now, the busiest first, until Ctrl-C."""
    from serve_app.commands import top as command

    command.run(url=url, sort=sort, once=once, interval_s=interval)
