"""`manta version`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import typer


def run() -> None:
    """Print the installed version; a checkout that was never installed has none."""
    try:
        typer.echo(version("manta-serve"))
    except PackageNotFoundError:
        typer.echo("unknown (not installed)")
