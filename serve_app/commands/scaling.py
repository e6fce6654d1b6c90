"""`manta scaling`: how many replicas there are, how many there should be, and why."""

from __future__ import annotations

import json
import time

import httpx
import typer
from rich.console import Console, Group

from serve_app.commands.client import connect, get_json
from serve_app.commands.scaling_table import budget, table
from serve_app.commands.watching import keep_showing
from serve_app.errors import CommandError

PATH = "/admin/scaling"


def show(*, url: str, as_json: bool, watch: bool) -> None:
    """Print how the number of every deployment's replicas stands. Raises CommandError."""
    if watch and as_json:
        raise CommandError("--watch shows tables; leave --json out, or call the command again and again")
    with connect(url) as client:
        if as_json:
            typer.echo(json.dumps(get_json(client, PATH), indent=2))
        elif watch:
            keep_showing(lambda: _look(client), console=Console())
        else:
            Console().print(_look(client))


def _look(client: httpx.Client) -> Group:
    document = get_json(client, PATH)
    return Group(table(document["apps"], now_s=time.time()), budget(document["budget"]))
