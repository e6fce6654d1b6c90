"""`manta validate FILE`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import typer
from rich.console import Console

from serve_app.commands import engine_checks
from serve_app.commands.config_file import exit_with, load_or_exit
from serve_app.config import PlatformConfig, VariantConfig
from serve_app.config_error import ConfigError, field_name, problem_at
from serve_app.config_fields import public_name
from serve_app.config_files import read_text
from serve_app.errors import CommandError
from serve_app.yaml_document import MAX_CHARACTERS, read_yaml

Check = Callable[[PlatformConfig], engine_checks.Report]


def run(file: Path, *, check_files: bool, engines: bool | None = None, check: Check = engine_checks.check) -> None:
    """Print the summary; exit with 1 when there are problems.

    Args:
        file: the platform's YAML document.
        check_files: False accepts model folders and prompt files that this machine does not have.
        engines: whether vLLM checks the engines; None: where it is installed.
        check: asks vLLM.

    Raises:
        CommandError: vLLM is to check the engines, but is not installed.
    """
    config = load_or_exit(file, check_files=check_files)
    verdict = _engine_verdict(file, config, check) if _is_wanted(config, engines) else None
    for line in summary(config):
        typer.echo(line)
    typer.echo(f"{file}: valid{f'; {verdict}' if verdict else ''}")


def _is_wanted(config: PlatformConfig, engines: bool | None) -> bool:
    if engines is False or not engine_checks.subjects(config):
        return False
    if engine_checks.is_installed():
        return True
    if engines:
        raise CommandError("vLLM is not installed here, so it cannot check the engines; leave out --engines")
    typer.echo("the engines are not checked: vLLM is not installed here", err=True)
    return False


def _engine_verdict(file: Path, config: PlatformConfig, check: Check) -> str:
    """Return what vLLM says of the engines when nothing is wrong with them; exit with 1 when something is."""
    count = len(engine_checks.subjects(config))
    what = "the engine" if count == 1 else f"{count} different engines"
    typer.echo(f"vLLM checks {what}; this may take a minute (--no-engines leaves it out)", err=True)
    try:
        with Console(stderr=True).status("importing vLLM"):
            report = check(config)
    except engine_checks.CheckFailedError as err:
        typer.echo(f"{file}: warning: the engines could not be checked: {err}", err=True)
        return "the engines were not checked"
    document = read_yaml(read_text(file, MAX_CHARACTERS))
    if report.problems:
        exit_with(file, ConfigError(str(file), [problem_at(path, message, document) for path, message in report.problems]))
    for places, reason in report.unchecked:
        typer.echo(f"{file}: {', '.join(field_name(place) for place in places)}: not checked: {reason}", err=True)
    return f"vLLM {report.version} accepts {what}"


def summary(config: PlatformConfig) -> Iterator[str]:
    """Yield one line per model, adapter, embedder and pipeline, in the declared order."""
    for model in config.models:
        yield f"model {model.name}: {'; '.join(_variant(v) for v in model.variants)}"
        for adapter in model.adapters:
            versions = (f"{v.name} {v.weight} % = {v.source}" for v in adapter.served)
            yield f"adapter {public_name(model.name, adapter.name)}: {'; '.join(versions)}"
    for embedder in config.embedders:
        yield f"embedder {embedder.name}: {embedder.source} on {embedder.accelerator or 'CPU'}"
    for pipeline in config.pipelines:
        versions = (
            f"{v.name} {v.weight} % = {v.collection} by {v.embedder}, top {v.top_k}, answered by {v.model}"
            for v in pipeline.versions
        )
        yield f"pipeline {pipeline.name}: {'; '.join(versions)}"


def _variant(variant: VariantConfig) -> str:
    engine = variant.engine
    kind = " (simulated)" if engine.kind == "simulated" else ""
    place = f"{engine.tensor_parallel_size} x {engine.pipeline_parallel_size} {variant.accelerator or 'CPU'}"
    scaling = variant.autoscaling
    replicas = f"{scaling.min_replicas} to {scaling.max_replicas}" if scaling else str(variant.replicas)
    return f"{variant.name} {variant.weight} % = {variant.source}{kind} on {place}, replicas {replicas}"
