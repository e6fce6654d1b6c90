"""`manta rollout`: the table of its commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from serve_app.cli_options import DEFAULT_URL, AsJson, Url, Watch

rollout = typer.Typer(help="Show and command canary rollouts of a running platform.", no_args_is_help=True)
RolloutName = Annotated[str, typer.Argument(metavar="NAME", help="The model, adapter (MODEL:ADAPTER) or pipeline.")]


@rollout.command("status")
def rollout_status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The model or pipeline; by default all.")] = None,
    watch: Watch = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show phase, step, weights, gates and figures of the last minute."""
    from serve_app.commands import rollout as command

    command.show_status(name, url=url, as_json=as_json, watch=watch)


@rollout.command("history")
def rollout_history(
    name: RolloutName,
    limit: Annotated[int, typer.Option(metavar="N", help="Only the last N decisions.", min=1)] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show what was decided, when, why and by whom."""
    from serve_app.commands import rollout as command

    command.show_history(name, url=url, as_json=as_json, limit=limit)


@rollout.command()
def pause(name: RolloutName, url: Url = DEFAULT_URL) -> None:
    """Stay at the step; gates are watched on, and a failed one still acts."""
    _command("pause", name, url)


@rollout.command()
def resume(name: RolloutName, url: Url = DEFAULT_URL) -> None:
    """Go on after a pause, or after a failed gate that has held the rollout."""
    _command("resume", name, url)


@rollout.command()
def promote(
    name: RolloutName,
    full: Annotated[bool, typer.Option("--full", help="To the last step, which completes the rollout.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Go on to the next step now, whatever the gates say."""
    _command("promote-fully" if full else "promote", name, url)


@rollout.command()
def restart(name: RolloutName, url: Url = DEFAULT_URL) -> None:
    """Begin the rollout anew, with the declared weights."""
    _command("restart", name, url)


@rollout.command()
def abort(
    name: RolloutName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; nobody is asked without a terminal.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Send everything back to the baseline now; works for plain weights too."""
    from serve_app.commands import rollout as command

    command.abort(name, url=url, is_sure=yes or not sys.stdin.isatty())


def _command(verb: str, name: str, url: str) -> None:
    from serve_app.commands import rollout as command
    from serve_app.rollout.commands import Verb

    command.command(Verb(verb), name, url=url)
