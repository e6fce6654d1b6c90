"""`manta validate FILE`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

from serve_app.commands.config_file import load_or_exit
from serve_app.config import PlatformConfig, VariantConfig


def run(file: Path, *, check_files: bool) -> None:
    """Print the summary; exit with 1 when there are problems."""
    config = load_or_exit(file, check_files=check_files)
    for line in summary(config):
        typer.echo(line)
    typer.echo(f"{file}: valid")


def summary(config: PlatformConfig) -> Iterator[str]:
    """Yield one line per model, embedder and pipeline, in the declared order."""
    for model in config.models:
        yield f"model {model.name}: {'; '.join(_variant(v) for v in model.variants)}"
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
