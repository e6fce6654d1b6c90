"""Rules between the fields of a configuration: each yields the field to change and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

from serve_app.config_fields import public_name

if TYPE_CHECKING:  # config.py applies these rules, so it imports this file
    from serve_app.config import (
        AcceleratorPoolConfig,
        EmbedderConfig,
        PipelineVersionConfig,
        PlatformConfig,
        StageScalingConfig,
        VariantConfig,
    )

FieldPath = tuple[str | int, ...]
Problems = Iterator[tuple[FieldPath, str]]


class Part(Protocol):
    """One of those that share a model's or pipeline's traffic."""

    @property
    def name(self) -> str:
        """Its name among them."""
        ...

    @property
    def weight(self) -> int:
        """Its declared share in percent."""
        ...


class PlacedError(ValueError):
    """Broken rules, each with the path of the field to change, relative to the model that checked them.

    Pydantic knows only the model whose validator failed; loading adds these paths to name the line.
    """

    def __init__(self, problems: Sequence[tuple[FieldPath, str]]) -> None:
        super().__init__("; ".join(message for _, message in problems))
        self.problems = tuple(problems)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean `x`?`` for the known word that is nearest, or nothing when none is near."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else ""


def near_miss(word: str, known: Iterable[str], *, listed_as: str) -> str:
    """Return ``did you mean `x`?``, or when nothing is near, all known words after ``listed_as``."""
    words = sorted(known) if isinstance(known, Set) else list(known)
    return did_you_mean(word, words) or f"{listed_as}: {', '.join(words) or 'none'}"


def refuse(problems: Iterable[tuple[FieldPath, str]]) -> None:
    """Raise one PlacedError that carries all the problems, if there are any."""
    if found := list(problems):
        raise PlacedError(found)


def repeated(what: str, places: Iterable[tuple[FieldPath, str]]) -> Problems:
    """Find names that stand at more than one place."""
    seen: set[str] = set()
    for path, name in places:
        if name in seen:
            yield path, f"{what} must be unique, {name!r} is used more than once"
        seen.add(name)


def share_problems(field: str, parts: Sequence[Part]) -> Problems:
    """Check the parts that share a model's traffic: names differ, weights sum to 100."""
    what = field.removesuffix("s")
    yield from repeated(f"{what} names", (((field, i, "name"), part.name) for i, part in enumerate(parts)))
    if (total := sum(part.weight for part in parts)) != 100:
        yield (field,), f"{what} weights must sum to 100, got {total}"


def name_problems(config: PlatformConfig) -> Problems:
    """Find names that two models, embedders or pipelines share."""
    # Clients send all three as `model`, so they share one namespace.
    sections = {
        "models": [model.name for model in config.models],
        "embedders": [embedder.name for embedder in config.embedders],
        "pipelines": [pipeline.name for pipeline in config.pipelines],
    }
    places: list[tuple[FieldPath, str]] = [
        ((section, i, "name"), name) for section, names in sections.items() for i, name in enumerate(names)
    ]
    yield from repeated("model, embedder and pipeline names", places)


def reference_problems(config: PlatformConfig) -> Problems:
    """Find pipelines and vector stores whose model or embedder is not declared."""
    known = {"model": _model_names(config), "embedder": {e.name for e in config.embedders}}
    for p, pipeline in enumerate(config.pipelines):
        for v, version in enumerate(pipeline.versions):
            for path, name in _references(version):
                if name not in (names := known[path[-1]]):
                    hint = near_miss(name, names, listed_as="declared")
                    yield ("pipelines", p, "versions", v, *path), f"{path[-1]} {name!r} is not declared, {hint}"
    yield from _variant_references(config)
    for m, model in enumerate(config.models):
        wanted = model.shadow.embedder if model.shadow is not None else None
        if wanted is not None and wanted not in known["embedder"]:
            hint = near_miss(wanted, known["embedder"], listed_as="declared")
            yield ("models", m, "shadow", "embedder"), f"embedder {wanted!r} is not declared, {hint}"
    if (stores := config.vector_stores) is not None and stores.embedder not in known["embedder"]:
        hint = near_miss(stores.embedder, known["embedder"], listed_as="declared")
        yield ("vector_stores", "embedder"), f"embedder {stores.embedder!r} is not declared, {hint}"


def _model_names(config: PlatformConfig) -> set[str]:
    """Return what requests may name of all models: the models and their adapters."""
    adapters = {public_name(model.name, adapter.name) for model in config.models for adapter in model.adapters}
    return {model.name for model in config.models} | adapters


def _variant_references(config: PlatformConfig) -> Problems:
    """Find pipeline versions that pin a variant which their model does not have."""
    variants = {model.name: [variant.name for variant in model.variants] for model in config.models}
    for p, pipeline in enumerate(config.pipelines):
        for v, version in enumerate(pipeline.versions):
            names = variants.get(version.model.partition(":")[0], [])  # an adapter's are those of its model
            if version.variant is not None and names and version.variant not in names:
                hint = near_miss(version.variant, names, listed_as="declared")
                path = ("pipelines", p, "versions", v, "variant")
                yield path, f"model {version.model!r} has no variant {version.variant!r}, {hint}"


def override_problems(config: PlatformConfig) -> Problems:
    """Find pipelines whose requests may choose a vector store that their embedder cannot search."""
    stores = config.vector_stores
    for p, pipeline in enumerate(config.pipelines):
        for v, version in enumerate(pipeline.versions):
            path = ("pipelines", p, "versions", v, "overrides", "vector_stores")
            if not version.overrides.vector_stores:
                continue
            if stores is None:
                fix = f"add `vector_stores: {{embedder: {version.embedder}}}` at the top level, or leave this out"
                yield path, f"there are no vector stores to search; {fix}"
            elif stores.embedder != version.embedder:
                what = f"vector stores are filled by embedder {stores.embedder!r}, this version's is {version.embedder!r}"
                yield path, f"{what}; use one embedder for both, or leave this out"


def _references(version: PipelineVersionConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    yield ("model",), version.model
    yield ("embedder",), version.embedder
    if version.condense is not None and version.condense.model is not None:
        yield ("condense", "model"), version.condense.model


def accelerator_problems(config: PlatformConfig) -> Problems:
    """Find what the declared accelerator pools cannot hold. No pool declared: nothing is checked."""
    places = ((("accelerators", i, "type"), pool.type) for i, pool in enumerate(config.accelerators))
    yield from repeated("accelerator types", places)
    pools = {pool.type: pool for pool in config.accelerators}
    if not pools:
        return
    for path, variant in _variants(config):
        for field, message in _fit_problems(variant, pools):
            yield (*path, *field), message
    for e, embedder in enumerate(config.embedders):
        if embedder.accelerator and embedder.accelerator not in pools:
            hint = near_miss(embedder.accelerator, pools, listed_as="declared")
            yield ("embedders", e, "accelerator"), f"{embedder.accelerator!r} is not in `accelerators`, {hint}"
    yield from _total_problems(config)


def _variants(config: PlatformConfig) -> Iterator[tuple[FieldPath, VariantConfig]]:
    for m, model in enumerate(config.models):
        for v, variant in enumerate(model.variants):
            yield ("models", m, "variants", v), variant


def _replicas(variant: VariantConfig) -> tuple[FieldPath, int, FieldPath, int]:
    """Return (field, fewest awake, field, most): a variant that may sleep must still fit once it wakes."""
    if scaling := variant.autoscaling:
        fewest = max(1, scaling.min_replicas)
        return ("autoscaling", "min_replicas"), fewest, ("autoscaling", "max_replicas"), scaling.max_replicas
    return ("replicas",), max(1, variant.replicas), ("replicas",), max(1, variant.replicas)


def _fit_problems(variant: VariantConfig, pools: dict[str, AcceleratorPoolConfig]) -> Problems:
    if variant.accelerator is None:
        return
    if (pool := pools.get(variant.accelerator)) is None:
        hint = near_miss(variant.accelerator, pools, listed_as="declared")
        yield ("accelerator",), f"{variant.accelerator!r} is not in `accelerators`, {hint}"
        return
    engine = variant.engine
    if engine.tensor_parallel_size > pool.per_node:
        message = f"{engine.tensor_parallel_size} ranks do not fit the {pool.per_node} {pool.type} of one node"
        yield ("engine", "tensor_parallel_size"), f"{message}; raise pipeline_parallel_size instead"
    _, _, field, most = _replicas(variant)
    if (need := most * engine.ranks) > (have := pool.per_node * pool.max_nodes):
        replicas = "1 replica" if most == 1 else f"{most} replicas"
        ranks = f"{engine.tensor_parallel_size} x {engine.pipeline_parallel_size} ranks"
        # With one replica it is the engine's parallelism that is too large, not the count.
        yield ("engine",) if most == 1 else field, f"{replicas} of {ranks} need {need} {pool.type}, {have} declared"


def _total_problems(config: PlatformConfig) -> Problems:
    """Find pools that hold every variant alone, but not the fewest replicas of all of them."""
    for i, pool in enumerate(config.accelerators):
        variants = [variant for _, variant in _variants(config) if variant.accelerator == pool.type]
        needs = [_replicas(variant)[1] * variant.engine.ranks for variant in variants]
        have = pool.per_node * pool.max_nodes
        if max(needs, default=0) <= have < sum(needs):
            message = f"{len(needs)} variants need at least {sum(needs)} {pool.type} together, {have} declared"
            yield ("accelerators", i), message


def spread_problems(config: PlatformConfig) -> Problems:
    """Find variants whose replicas are made of several stages, for which Serve keeps no ``max_replicas_per_node``."""
    for path, variant in _variants(config):
        if variant.max_replicas_per_node is not None and variant.engine.pipeline_parallel_size > 1:
            message = "Ray Serve takes no such limit where pipeline_parallel_size is over 1; leave it out"
            yield (*path, "max_replicas_per_node"), message


def variant_units(variant: VariantConfig) -> int:
    """Return the accelerators that one replica of a variant holds."""
    return variant.engine.ranks if variant.accelerator else 0


def embedder_units(embedder: EmbedderConfig) -> int:
    """Return the accelerators that one replica of an embedder holds."""
    return 1 if embedder.accelerator else 0


def budget_problems(config: PlatformConfig) -> Problems:
    """Find what ``scaling.max_accelerators`` cannot hold. Absent: nothing is checked."""
    if (budget := config.scaling.max_accelerators) is None:
        return
    variants = [(path, variant, variant_units(variant)) for path, variant in _variants(config)]
    needs = [units * _fewest(variant.autoscaling, variant.replicas) for _, variant, units in variants]
    needs += [embedder_units(embedder) * _fewest(embedder.autoscaling, embedder.replicas) for embedder in config.embedders]
    total = sum(needs)
    for path, variant, units in variants:
        may_sleep = variant.autoscaling is not None and variant.autoscaling.min_replicas == 0
        if units > budget:
            yield (*path, "engine"), f"one replica needs {units} accelerators, `scaling.max_accelerators` is {budget}"
        elif may_sleep and total <= budget < total + units:
            message = f"it could never wake: one replica needs {units} accelerators, and the fewest replicas of all others"
            yield (*path, "engine"), f"{message} hold {total} of the {budget} of `scaling.max_accelerators`"
    # One awake replica that is too large by itself, with nothing beside it, is not told twice.
    told = {need for need, (_, _, units) in zip(needs, variants, strict=False) if need == units > budget}
    if total > budget and total not in told:
        message = f"the fewest replicas of all need {total} accelerators together, the limit is {budget}"
        yield ("scaling", "max_accelerators"), f"{message}; raise it, or lower `min_replicas` or `replicas` of some"


def _fewest(scaling: StageScalingConfig | None, replicas: int) -> int:
    return replicas if scaling is None else scaling.min_replicas


def key_problems(config: PlatformConfig) -> Problems:
    """Find API keys that are declared twice, or that name a model nobody declares."""
    keys = config.auth.keys
    yield from repeated("key names", ((("auth", "keys", i, "name"), key.name) for i, key in enumerate(keys)))
    known = _model_names(config) | {e.name for e in config.embedders} | {p.name for p in config.pipelines}
    for k, key in enumerate(keys):
        for i, name in enumerate(key.models or ()):
            if name not in known:
                hint = near_miss(name, known, listed_as="declared")
                yield ("auth", "keys", k, "models", i), f"{name!r} is not declared, {hint}"
