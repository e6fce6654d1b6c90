from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from serve_app.commands.watching import keep_showing
from serve_app.errors import CommandError


def console(out: StringIO, term: str = "xterm") -> Console:
    return Console(file=out, width=200, height=100, force_terminal=True, _environ={"TERM": term})


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_watching_goes_on_while_a_router_is_away(term: str) -> None:
    looks: list[Text | CommandError] = [Text("first"), CommandError("still starting"), Text("third")]
    naps: list[float] = []
    out = StringIO()

    def look() -> Text:
        if isinstance(found := looks.pop(0), CommandError):
            raise found
        return found

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_showing(look, console=console(out, term), sleep=sleep)
    assert (naps, looks) == ([2.0, 2.0, 2.0], [])
    told = out.getvalue()
    assert ("first" in told, "still starting; trying again" in told, "third" in told) == (True, True, True)


def test_a_first_look_that_fails_ends_it() -> None:
    def look() -> Text:
        raise CommandError("not running")

    with pytest.raises(CommandError, match="not running"):
        keep_showing(look, console=console(StringIO()))
