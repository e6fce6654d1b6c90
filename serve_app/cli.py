"""`manta`: the table of commands. Each command's work, and its imports, are in serve_app/commands/<command>.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="manta",
    help="Serve language models and RAG pipelines on Ray Serve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals may hold keys
)

ConfigFile = Annotated[Path, typer.Argument(metavar="FILE", help="The platform's YAML document.")]
NoFiles = Annotated[
    bool, typer.Option("--no-files", help="Accept model folders and prompt files that are not on this machine.")
]
HttpPort = Annotated[int, typer.Option(help="Port of the REST API.", min=1, max=65535)]


@app.command()
def validate(file: ConfigFile, no_files: NoFiles = False) -> None:
    """Check a configuration; print a line per model and pipeline, or every problem with its line."""
    from serve_app.commands import validate as command

    command.run(file, check_files=not no_files)


@app.command()
def render(file: ConfigFile, no_files: NoFiles = False, http_port: HttpPort = 8000) -> None:
    """Print the Ray Serve configuration (ServeDeploySchema, YAML) that a configuration stands for."""
    from serve_app.commands import render as command

    command.run(file, check_files=not no_files, http_port=http_port)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors and for the chart."""
    from serve_app.commands import schema as command

    command.run()


@app.command()
def version() -> None:
    """Print Manta's version."""
    from serve_app.commands import version as command

    command.run()


def main() -> None:
    """Run the command line; the console script `manta`."""
    app()


if __name__ == "__main__":  # pragma: no cover - `python -m serve_app.cli`, run by a test in its own process
    main()
