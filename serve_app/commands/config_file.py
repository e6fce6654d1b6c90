"""The FILE argument that most commands take."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import typer

from serve_app.config import PlatformConfig
from serve_app.config_error import ConfigError
from serve_app.loading import load_platform


def load_or_exit(file: Path, *, check_files: bool = True) -> PlatformConfig:
    """Return the configuration, or print its problems on stderr and exit with 1."""
    try:
        return load_platform(file, check_files=check_files)
    except ConfigError as err:
        exit_with(file, err)


def exit_with(file: Path, error: ConfigError) -> NoReturn:
    """Print the problems of a configuration on stderr, and exit with 1."""
    count = len(error.problems)
    typer.echo(error, err=True)
    typer.echo(f"{count} problem{'' if count == 1 else 's'} in {file}", err=True)
    raise typer.Exit(1) from error
