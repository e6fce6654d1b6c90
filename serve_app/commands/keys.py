"""`manta keys`: make, list and revoke API keys in a file."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from serve_app.config_auth import ApiKeyConfig
from serve_app.config_error import ConfigError, field_name, message_of
from serve_app.credentials import WallClock, hash_of, new_key, wall_clock
from serve_app.errors import CommandError
from serve_app.key_file import parse_keys, read_keys

HEADER = "# API keys, written by `manta keys`. Only salted hashes stand here: a key was shown once, when it was made.\n"
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def create(name: str, options: dict[str, Any], *, file: Path | None, expires: str | None, now: WallClock = wall_clock) -> None:
    """Print a new key, once; append its record to the file, or print it when there is none.

    Raises:
        CommandError: an option is wrong, the name is taken, or the file cannot be used.
    """
    key = new_key(name)
    record = _record(name, {**options, "hash": hash_of(key), "expires_at": None if expires is None else _until(expires, now())})
    if file is None:
        typer.echo(f"# the record for `auth.keys` or a file of keys:\n{_text([record])}", nl=False)
    else:
        records = _read(file) if file.exists() else ()
        if any(each.name == name for each in records):
            raise CommandError(
                f"{file} has a key named {name!r} already; take another name, or `manta keys revoke {name}` first"
            )
        _write(file, [*records, record])
        typer.echo(f"added to {file}; running platforms take it within seconds", err=True)
    typer.echo("the key, which is shown only now:", err=True)
    typer.echo(key)


def show(file: Path, *, now: WallClock = wall_clock) -> None:
    """Print a table of the keys in a file. Raises CommandError: the file cannot be used."""
    table = Table("name", "tenant", "models", "collections", "requests/min", "tokens/min", "concurrent", "priority", "expires")
    for key in _read(file):
        limits = [key.requests_per_minute, key.tokens_per_minute, key.concurrent_requests]
        table.add_row(
            f"{key.name} (admin)" if key.admin else key.name,
            key.tenant_name,
            _names(key.models),
            _names(key.collections),
            *("-" if limit is None else str(limit) for limit in limits),
            str(key.priority),
            _expiry(key.expires_at, now()),
        )
    Console().print(table)


def revoke(name: str, file: Path) -> None:
    """Remove a key from a file. Raises CommandError: it is not there, or the file cannot be used."""
    records = _read(file)
    kept = [each for each in records if each.name != name]
    if len(kept) == len(records):
        raise CommandError(f"{file} has no key named {name!r}; it has {', '.join(each.name for each in records) or 'none'}")
    _write(file, kept)
    typer.echo(f"{name} is revoked; running platforms refuse it within seconds")


def _record(name: str, fields: dict[str, Any]) -> ApiKeyConfig:
    try:
        return ApiKeyConfig(name=name, **{field: value for field, value in fields.items() if value is not None})
    except ValidationError as err:
        problems = (f"{field_name(each['loc'])}: {message_of(each)}" for each in err.errors(include_url=False))
        raise CommandError("; ".join(problems)) from err


def _until(text: str, now: datetime) -> datetime:
    """Return when a key expires: a time with its zone, or so long from now. Raises CommandError."""
    try:
        until = _time(text, now)
    except OverflowError as err:
        raise CommandError(f"--expires {text}: too far away; leave it out for a key that does not expire") from err
    if until <= now:
        raise CommandError(f"--expires {text}: the key would have expired already; give a time to come, such as 90d")
    return until


def _time(text: str, now: datetime) -> datetime:
    if (found := re.fullmatch(r"(\d{1,6})([mhdw])", text)) is not None:
        return now + timedelta(**{UNITS[found[2]]: int(found[1])})
    try:
        until = datetime.fromisoformat(text)
    except ValueError as err:
        raise CommandError(f"--expires {text}: write 90d, 12h, 2w or 30m, or a time such as 2030-01-31T00:00:00Z") from err
    if until.tzinfo is None:
        raise CommandError(f"--expires {text}: needs a time zone, such as {text}Z")
    return until


def _read(file: Path) -> Sequence[ApiKeyConfig]:
    try:
        return read_keys(file)
    except ConfigError as err:
        raise CommandError(str(err)) from err


def _text(records: Sequence[ApiKeyConfig]) -> str:
    """Return the records as YAML, without what is at its default."""
    documents = [record.model_dump(mode="json", exclude_defaults=True) for record in records]
    return str(yaml.safe_dump({"keys": documents}, sort_keys=False, allow_unicode=True))


def _write(file: Path, records: Sequence[ApiKeyConfig]) -> None:
    """Replace the file as a whole: readers see all old or all new, and nobody else may read it."""
    text = HEADER + _text(records)
    parse_keys(text, name=str(file))  # what cannot be read back is not written
    target = file.resolve()  # a link stays a link
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as made:
                made.write(text)
                made.flush()
                os.fsync(made.fileno())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as err:
        raise CommandError(f"{file} cannot be written: {(err.strerror or str(err)).lower()}") from err


def _names(names: Sequence[str] | None) -> str:
    return "all" if names is None else ", ".join(names) or "none"


def _expiry(at: datetime | None, now: datetime) -> str:
    if at is None:
        return "never"
    return f"{at:%Y-%m-%d %H:%M %Z}" + (" (expired)" if at <= now else "")
