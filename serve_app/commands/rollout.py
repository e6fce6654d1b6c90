"""`manta rollout`: how canaries stand, what was decided on them, and an operator's commands."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import httpx
import typer
from rich.console import Console, Group

from serve_app.commands.client import connect, get_json, post_json
from serve_app.commands.rollout_tables import decided, history, report
from serve_app.commands.watching import keep_showing
from serve_app.errors import CommandError
from serve_app.rollout.commands import Verb

ALL = "/admin/rollouts"


def show_status(name: str | None, *, url: str, as_json: bool, watch: bool) -> None:
    """Print how one split stands, or all. Raises CommandError."""
    if watch and as_json:
        raise CommandError("--watch shows tables; leave --json out, or call the command again and again")
    with connect(url) as client:
        if as_json:
            typer.echo(json.dumps(get_json(client, _path(name) if name else ALL), indent=2))
        elif watch:
            keep_showing(lambda: _look(client, name), console=Console())
        else:
            Console().print(_look(client, name))


def _look(client: httpx.Client, name: str | None) -> Group:
    if name is None:
        document = get_json(client, ALL)
    else:
        one = get_json(client, _path(name))
        document = {**one, "splits": [one]}
    return Group(*report(document, now_s=time.time()))


def show_history(name: str, *, url: str, as_json: bool, limit: int) -> None:
    """Print the last decisions on a model or pipeline, the latest at the end. Raises CommandError."""
    with connect(url) as client:
        decisions: list[Any] = get_json(client, f"{_path(name)}/history")["decisions"][-limit:]
    if as_json:
        typer.echo(json.dumps({"decisions": decisions}, indent=2))
    else:
        Console().print(history(decisions))


def command(verb: Verb, name: str, *, url: str) -> None:
    """Give an order, and print what is in force from then on. Raises CommandError."""
    with connect(url) as client:
        typer.echo(decided(post_json(client, f"{_path(name)}/{verb.value}")))


def abort(name: str, *, url: str, is_sure: bool) -> None:
    """Send everything back to the baseline, once that is sure. Raises CommandError."""
    if not is_sure and not typer.confirm(f"Send the conversations of {name!r} back to its baseline now?"):
        raise CommandError("nothing was changed")
    command(Verb.ABORT, name, url=url)


def _path(name: str) -> str:
    return f"{ALL}/{quote(name, safe='')}"
