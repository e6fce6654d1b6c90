from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from serve_app.commands.watching import keep_showing
from serve_app.errors import CommandError

AWAY = CommandError("still starting")


def console(out: StringIO, term: str = "xterm") -> Console:
    return Console(file=out, width=200, height=100, force_terminal=True, _environ={"TERM": term})


def watched(*looks: str | CommandError, term: str, is_whole: bool = False) -> tuple[str, list[float]]:
    """Return what was shown until the looks were over, and the pauses between them."""
    left, naps, out = list(looks), list[float](), StringIO()

    def look() -> Text:
        if isinstance(found := left.pop(0), CommandError):
            raise found
        return Text(found)

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if not left:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_showing(look, console=console(out, term), every_s=0.5, is_whole=is_whole, sleep=sleep)
    return out.getvalue(), naps


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_watching_goes_on_while_a_router_is_away(term: str) -> None:
    told, naps = watched("first", AWAY, "third", term=term)
    assert naps == [0.5, 0.5, 0.5]
    assert ("first" in told, "still starting; trying again" in told, "third" in told) == (True, True, True)


def test_the_last_figures_stay_with_one_line_that_says_of_when_they_are() -> None:
    told, _ = watched("first", AWAY, AWAY, AWAY, term="dumb")
    looks = told.split("first\n")[1:]
    assert [look.count("still starting; trying again. These figures are of ") for look in looks[:4]] == [0, 1, 1, 1]


@pytest.mark.parametrize(("term", "is_taken"), [("xterm", True), ("dumb", False)])
def test_only_a_real_terminal_is_taken_as_a_whole(term: str, is_taken: bool) -> None:
    told, _ = watched("first", term=term, is_whole=True)
    assert ("\x1b[?1049h" in told, "\x1b[?1049l" in told, "first" in told) == (is_taken, is_taken, True)


def test_a_first_look_that_fails_ends_it() -> None:
    def look() -> Text:
        raise CommandError("not running")

    with pytest.raises(CommandError, match="not running"):
        keep_showing(look, console=console(StringIO()))
