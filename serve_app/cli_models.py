"""`manta models`: the table of its commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli_options import AsJson

models = typer.Typer(help="Push, pull and list models and adapters in object storage.", no_args_is_help=True)
Uri = Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="Where the objects are.")]


@models.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder; hidden files in it stay here.")],
    uri: Uri,
    is_any: Annotated[bool, typer.Option("--any", help="Push a folder that is neither a model nor an adapter.")] = False,
) -> None:
    """Upload a folder, and a manifest by which downloads are verified; what is there already is not sent again."""
    from serve_app.commands import models_push as command

    command.run(folder, uri, is_any=is_any)


@models.command()
def pull(
    uri: Uri,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="A new or empty folder; by default this node's cache.")
    ] = None,
) -> None:
    """Download and verify; print the folder's path. One that was broken off goes on with what is missing."""
    from serve_app.commands import models_pull as command

    command.run(uri, folder)


@models.command("ls")
def list_models(
    uri: Annotated[
        str | None, typer.Argument(metavar="[s3://BUCKET[/PREFIX]]", help="Where to look; by default in this node's cache.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the models and adapters below a prefix, or what this node's cache holds."""
    from serve_app.commands import models_ls as command

    if uri is None:
        command.show_cache(as_json=as_json)
    else:
        command.show_remote(uri, as_json=as_json)
