"""`manta models push FOLDER s3://BUCKET/PREFIX`."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from serve_app.errors import CommandError, PlatformError
from serve_app.storage.connection import Tuning, connect
from serve_app.storage.disk import expanded
from serve_app.storage.location import parse_location
from serve_app.storage.shelf import ANYTHING
from serve_app.storage.terminal import shown
from serve_app.storage.upload import Push, hash_files, local_files


def run(folder: Path, uri: str, *, is_any: bool) -> None:
    """Push a folder's files, and say what was sent. Raises CommandError."""
    try:
        place = parse_location(uri)
        files = local_files(expanded(folder, param="folder"), needs=() if is_any else ANYTHING)
        tuning, console = Tuning(), Console(stderr=True)
        with shown(console, f"hashing {folder}") as report:
            sums = hash_files(files, report)
        with shown(console, f"pushing to {place.uri}") as report:
            done = Push(connect(tuning), place, tuning=tuning).run(files, sums, report)
    except PlatformError as err:
        raise CommandError(err.message) from err
    typer.echo(f"{place.uri}: {len(done.sent)} files sent ({done.sent_bytes / 1e6:.1f} MB), {len(done.skipped)} were there")
