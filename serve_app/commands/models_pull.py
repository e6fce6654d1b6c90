"""`manta models pull s3://BUCKET/PREFIX [FOLDER]`."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from serve_app.errors import CommandError, PlatformError
from serve_app.storage.folders import fetch, open_storage, pull
from serve_app.storage.location import parse_location
from serve_app.storage.remote import list_folder
from serve_app.storage.terminal import shown


def run(uri: str, folder: Path | None) -> None:
    """Download a prefix and print where it is. Raises CommandError."""
    try:
        place, storage = parse_location(uri), open_storage()
        remote = list_folder(storage.s3, place)
        with shown(Console(stderr=True), f"pulling {place.uri}") as report:
            if folder is None:
                with fetch(remote, storage, on_progress=report) as cached:
                    path = cached.path
            else:
                path = pull(remote, storage, folder=folder, on_progress=report)
    except PlatformError as err:
        raise CommandError(err.message) from err
    typer.echo(path)
