"""`manta render FILE`."""

from __future__ import annotations

from pathlib import Path

import typer
import yaml

from serve_app.commands.config_file import load_or_exit


def run(file: Path, *, check_files: bool, http_port: int, grpc_port: int) -> None:
    """Print the ServeDeploySchema; exit with 1 when the configuration has problems."""
    config = load_or_exit(file, check_files=check_files)
    # After the check: the builders import Ray, and a typo should not cost seconds to find.
    from serve_app.apps import build_schema

    schema = build_schema(config, http_port=http_port, grpc_port=grpc_port)
    typer.echo(yaml.safe_dump(schema, sort_keys=False), nl=False)
