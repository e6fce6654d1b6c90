"""`manta schema`."""

from __future__ import annotations

import json

import typer

from serve_app.config import PlatformConfig


def platform_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of the platform's document."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **PlatformConfig.model_json_schema()}


def run() -> None:
    """Print it."""
    typer.echo(json.dumps(platform_schema(), indent=2))
