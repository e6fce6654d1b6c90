"""Watching: what a command shows, shown again and again until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from serve_app.errors import CommandError

WATCH_S = 2.0


def keep_showing(
    look: Callable[[], RenderableType],
    *,
    console: Console,
    every_s: float = WATCH_S,
    is_whole: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show what ``look`` returns, every so many seconds until Ctrl-C; ``is_whole`` takes the whole terminal for it.

    While the platform is away, the last figures stay, with a line that says so and of when they are.
    Raises CommandError when the first look fails.
    """
    shown = found = look()
    seen_s = time.time()
    is_screen = console.is_terminal and not console.is_dumb_terminal
    with Live(shown, console=console, auto_refresh=False, screen=is_whole and is_screen) as live:
        while True:
            _draw(live, shown, is_screen=is_screen)
            sleep(every_s)
            try:
                shown = found = look()
                seen_s = time.time()
            except CommandError as err:  # the Router that answered may be on its way out; another one comes
                at = time.strftime("%H:%M:%S", time.localtime(seen_s))
                shown = Group(found, Text(f"{err}; trying again. These figures are of {at}.", style="bold red"))


def _draw(live: Live, shown: RenderableType, *, is_screen: bool) -> None:
    if is_screen:
        live.update(shown, refresh=True)
    else:  # no cursor to move there, so Live would keep everything for its end
        live.console.print(shown)
