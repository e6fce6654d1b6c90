"""`manta models ls`: what is below a prefix, or in this node's cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.errors import CommandError, PlatformError
from serve_app.storage.cache import Entry, cache_from
from serve_app.storage.connection import connect
from serve_app.storage.location import parse_location
from serve_app.storage.remote import list_objects
from serve_app.storage.shelf import Shelved, shelve


def show_remote(uri: str, *, as_json: bool) -> None:
    """Print the models and adapters below a prefix. Raises CommandError."""
    try:
        place = parse_location(uri, may_be_bucket=True)
        found = shelve(place, list_objects(connect(), place))
    except PlatformError as err:
        raise CommandError(err.message) from err
    if as_json:
        documents = [{**asdict(each), "modified": each.modified.astimezone(UTC).isoformat()} for each in found]
        typer.echo(json.dumps(documents, indent=2))
    elif found:
        Console().print(remote_table(found))
    else:
        typer.echo(f"no model and no adapter below {place.uri}")


def show_cache(*, as_json: bool) -> None:
    """Print what this node's cache holds. Raises CommandError."""
    try:
        cache = cache_from()
        entries = cache.entries()[::-1]
        documents = [_document(entry) for entry in entries]
    except PlatformError as err:
        raise CommandError(err.message) from err
    except OSError as err:
        raise CommandError(f"the cache {cache.root} cannot be read: {err}") from err
    if as_json:
        typer.echo(json.dumps(documents, indent=2))
    elif documents:
        Console().print(cache_table(documents))
    else:
        typer.echo(f"the cache {cache.root} is empty")


def remote_table(found: Sequence[Shelved]) -> Table:
    """Return a line for each model or adapter."""
    table = Table("name")
    table.add_column("files", justify="right")
    table.add_column("size", justify="right")
    for name in ("kind", "last modified (UTC)"):
        table.add_column(name)
    for each in found:
        table.add_row(Text(each.name), str(each.files), size(each.total_bytes), each.kind, minute(each.modified))
    return table


def cache_table(documents: Sequence[dict[str, Any]]) -> Table:
    """Return a line for each folder in the cache."""
    table = Table("source")
    table.add_column("size", justify="right")
    for name in ("last used (UTC)", "in use", "kind", "state"):
        table.add_column(name)
    for each in documents:
        used = minute(datetime.fromisoformat(each["last_used"]))
        state = "partial" if each["is_partial"] else "whole"
        in_use = "yes" if each["in_use"] else "no"
        table.add_row(Text(each["source"]), size(each["total_bytes"]), used, in_use, each["kind"], state)
    return table


def size(count: int) -> str:
    """Return bytes in the unit that suits them."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def minute(at: datetime) -> str:
    """Return a time, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "source": entry.source,
        "path": str(entry.slot.partial if entry.is_partial else entry.slot.folder),
        "kind": entry.kind,
        "total_bytes": entry.total_bytes,
        "last_used": datetime.fromtimestamp(entry.used_at_s, UTC).isoformat(),
        "in_use": entry.slot.is_in_use(),
        "is_partial": entry.is_partial,
    }
