"""`manta`: the table of commands. Each command's work, and its imports, are in serve_app/commands/<command>.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli_loadtest import loadtest
from serve_app.cli_models import models
from serve_app.cli_options import DEFAULT_URL, AsJson, Interval, Url, Watch
from serve_app.cli_rollout import rollout
from serve_app.cli_simulate import simulate
from serve_app.cli_top import top
from serve_app.errors import CommandError

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
Engines = Annotated[
    bool | None, typer.Option("--engines/--no-engines", help="Let vLLM check the engines; by default where it is installed.")
]
RunFile = Annotated[Path, typer.Argument(metavar="[FILE]", help="The platform's YAML document.")]
HttpPort = Annotated[int, typer.Option(help="Port of the REST API.", min=1, max=65535)]
GrpcPort = Annotated[int, typer.Option(help="Port of the gRPC API.", min=1, max=65535)]
OwnGrpcPort = Annotated[
    int | None, typer.Option(help="Port of the gRPC API; by default 9000, or a free one.", min=1, max=65535, show_default=False)
]


@app.command()
def validate(file: ConfigFile, no_files: NoFiles = False, engines: Engines = None) -> None:
    """Check a configuration; print a line per model and pipeline, or every problem with its line."""
    from serve_app.commands import validate as command

    command.run(file, check_files=not no_files, engines=engines)


@app.command()
def render(file: ConfigFile, no_files: NoFiles = False, http_port: HttpPort = 8000, grpc_port: GrpcPort = 9000) -> None:
    """Print the Ray Serve configuration (ServeDeploySchema, YAML) that a configuration stands for."""
    from serve_app.commands import render as command

    command.run(file, check_files=not no_files, http_port=http_port, grpc_port=grpc_port)


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


@app.command()
def run(
    file: RunFile = Path("platform.yaml"),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")] = "127.0.0.1",
    port: HttpPort = 8000,
    grpc_port: OwnGrpcPort = None,
    demo: Annotated[bool, typer.Option(help="Ingest Python's documentation and ask three questions.")] = False,
    demo_folder: Annotated[Path, typer.Option(help="Where the demo's documents are written.")] = Path("data/python-docs"),
) -> None:
    """Start the platform on this machine and serve until Ctrl-C."""
    from serve_app.commands import run as command
    from serve_app.commands.config_file import load_or_exit

    config = load_or_exit(file)
    on_up: command.OnUp | None = None
    if demo:
        from serve_app.commands import demo as demo_command

        config, key = demo_command.with_key(config)

        def on_up(running: command.Running) -> None:
            demo_command.run(running, folder=demo_folder, api_key=key)

    command.run(config, host=host, port=port, grpc_port=grpc_port, on_up=on_up)


@app.command()
def ingest(
    path: Annotated[str, typer.Argument(metavar="PATH", help="File, folder or s3://bucket/prefix: text, Markdown, HTML, PDF.")],
    collection: Annotated[str, typer.Option(help="Collection to fill; made when it is missing.")],
    embedder: Annotated[str | None, typer.Option(help="Embedder; by default the one a pipeline binds to it.")] = None,
    config: Annotated[Path, typer.Option(help="The platform's YAML document.")] = Path("platform.yaml"),
    url: Url = DEFAULT_URL,
    prune: Annotated[bool, typer.Option(help="Delete documents of this folder whose file is gone.")] = False,
    root_name: Annotated[str | None, typer.Option(help="First part of document ids; by default the folder's name.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest passage, in the embedder's tokens.", min=16)] = 120,
    overlap_tokens: Annotated[int, typer.Option(help="Tokens that neighbouring passages share.", min=0)] = 20,
) -> None:
    """Read documents into a collection; running it again writes only what has changed."""
    from serve_app.commands import ingest as command
    from serve_app.commands.config_file import load_or_exit
    from serve_app.ingest.command import IngestOptions

    options = IngestOptions(
        path,
        collection,
        prune=prune,
        max_tokens=max_tokens,
        overlap_tokens=overlap_tokens,
        root_name=root_name,
    )
    report = command.run(options, load_or_exit(config, check_files=False), embedder=embedder, url=url)
    raise typer.Exit(report.exit_code)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    model: Annotated[str | None, typer.Option(help="Pipeline or model; by default the first pipeline.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Ask a running platform; print the answer as it comes, with its citations."""
    from serve_app.commands import ask as command

    command.run(question, model=model, url=url)


@app.command()
def status(watch: Watch = False, interval: Interval = 2.0, url: Url = DEFAULT_URL) -> None:
    """Show applications, replicas, queue depth, variants and weights of a running platform."""
    from serve_app.commands import status as command

    command.run(url=url, watch=watch, interval_s=interval)


app.command()(top)


@app.command()
def scaling(watch: Watch = False, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show how many replicas there are, how many there should be, and why; and the accelerators in use."""
    from serve_app.commands import scaling as command

    command.show(url=url, as_json=as_json, watch=watch)


@app.command()
def tune(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Locust run's PREFIX_stats_history.csv.")],
    slo_ttft: Annotated[float | None, typer.Option(metavar="S", help="Seconds to the first token, at p95.", min=0.001)] = None,
    slo_itl: Annotated[float | None, typer.Option(metavar="S", help="Seconds between tokens, at p95.", min=0.0001)] = None,
    slo_e2e: Annotated[float | None, typer.Option(metavar="S", help="Seconds for the whole answer, at p95.", min=0.001)] = None,
    replicas: Annotated[int, typer.Option(help="Replicas that took the load.", min=1)] = 1,
    startup_s: Annotated[float | None, typer.Option(metavar="S", help="Seconds a replica takes to start.", min=0)] = None,
    name: Annotated[str | None, typer.Option(help="Which of several entries to judge (column Name).")] = None,
    settle_s: Annotated[float, typer.Option(metavar="S", help="Seconds to leave out after each change of users.", min=0)] = 15,
) -> None:
    """Propose a replica's autoscaling settings from a Locust run; exits with 1 when nothing follows from it."""
    from autoscaling.tuning import Slo
    from serve_app.commands import tune as command

    options = command.TuneOptions(replicas=replicas, startup_s=startup_s, settle_s=settle_s, name=name)
    command.run(file, Slo(ttft_s=slo_ttft, itl_s=slo_itl, e2e_s=slo_e2e), options)


app.command()(simulate)
app.command()(loadtest)

keys = typer.Typer(help="Make, list and revoke API keys in a file of keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the key: lower-case letters, digits and inner `-`.")]
KeyFileOption = Annotated[Path, typer.Option("--file", help="The file of keys that `auth.keys_file` names.")]
Listed = Annotated[str | None, typer.Option(metavar="A,B", help="Only these, separated by commas; by default all.")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="By default without limit.", min=1)]


@keys.command("create")
def create_key(
    name: KeyName,
    tenant: Annotated[str | None, typer.Option(help="Tenant that owns what the key makes; by default the name.")] = None,
    models: Listed = None,
    collections: Listed = None,
    requests_per_minute: Limit = None,
    tokens_per_minute: Limit = None,
    concurrent_requests: Limit = None,
    priority: Annotated[int | None, typer.Option(help="Who goes first when requests wait; higher first.", min=0, max=9)] = None,
    admin: Annotated[bool, typer.Option("--admin", help="May read the platform's status, and command rollouts.")] = False,
    expires: Annotated[str | None, typer.Option(help="When it ends: 90d, 12h, or a time with its zone.")] = None,
    file: Annotated[Path | None, typer.Option(help="File of keys to add it to; by default the record is printed.")] = None,
) -> None:
    """Make a key and print it, this once; only a salted hash of it is kept."""
    from serve_app.commands import keys as command

    options = {
        "tenant": tenant,
        "models": None if models is None else tuple(models.split(",")),
        "collections": None if collections is None else tuple(collections.split(",")),
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent_requests": concurrent_requests,
        "priority": priority,
        "admin": admin,
    }
    command.create(name, options, file=file, expires=expires)


@keys.command("list")
def list_keys(file: KeyFileOption) -> None:
    """Show the keys of a file and what they may do."""
    from serve_app.commands import keys as command

    command.show(file)


@keys.command("revoke")
def revoke_key(name: KeyName, file: KeyFileOption) -> None:
    """Remove a key from a file; running platforms refuse it within seconds."""
    from serve_app.commands import keys as command

    command.revoke(name, file)


app.add_typer(rollout, name="rollout")
app.add_typer(models, name="models")


def main() -> None:
    """Run the command line; the console script `manta`."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except CommandError as err:
        typer.echo(f"manta: {err}", err=True)
        sys.exit(1)


if __name__ == "__main__":  # pragma: no cover - `python -m serve_app.cli`, run by a test in its own process
    main()
