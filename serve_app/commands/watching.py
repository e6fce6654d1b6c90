"""Watching: what a command shows, shown again and again until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from serve_app.errors import CommandError

WATCH_S = 2.0


def keep_showing(look: Callable[[], RenderableType], *, console: Console, sleep: Callable[[float], None] = time.sleep) -> None:
    """Show what ``look`` returns, every ``WATCH_S`` seconds until Ctrl-C. Raises CommandError when the first look fails."""
    shown = look()
    with Live(shown, console=console, auto_refresh=False) as live:
        while True:
            _draw(live, shown)
            sleep(WATCH_S)
            try:
                shown = look()
            except CommandError as err:  # the Router that answered may be on its way out; another one comes
                shown = Group(shown, Text(f"{err}; trying again", style="bold red"))


def _draw(live: Live, shown: RenderableType) -> None:
    if live.console.is_terminal and not live.console.is_dumb_terminal:
        live.update(shown, refresh=True)
    else:  # no cursor to move there, so Live would keep everything for its end
        live.console.print(shown)
