"""The configuration's part on LoRA adapters: small changes to a model's weights, called as models of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from serve_app.config_fields import Config, Name
from serve_app.config_rollouts import RolloutConfig, rollout_problems
from serve_app.config_rules import FieldPath, Problems, refuse, repeated, share_problems
from serve_app.config_sources import Source

if TYPE_CHECKING:  # config.py applies these rules, so it imports this file
    from serve_app.config import ModelConfig, PlatformConfig

ONLY_VERSION = "v1"  # of an adapter that is written as its source alone
SOURCE = "Folder (./adapters/x), s3://bucket/prefix or Hugging Face id of a PEFT adapter: adapter_config.json and its weights."


class AdapterVersionConfig(Config):
    """One version of an adapter."""

    name: Name = Field(description="Name of the version, such as v1.")
    source: Source = Field(description=SOURCE)
    weight: int = Field(100, ge=0, le=100, description="Share of the adapter's conversations in percent.")


class AdapterConfig(Config):
    """A LoRA adapter of a model: `source` alone, or `versions` that share its conversations."""

    name: Name = Field(description="Clients send `MODEL:ADAPTER` as `model`.")
    source: Source | None = Field(None, description=f"{SOURCE} The same as one version `v1`.")
    versions: tuple[AdapterVersionConfig, ...] = Field((), description="Versions that share the traffic, the baseline first.")
    rollout: RolloutConfig | None = Field(None, description="Raise a version's share step by step, while its gates hold.")

    @property
    def served(self) -> tuple[AdapterVersionConfig, ...]:
        """Its versions, however they are written."""
        if self.source is None:
            return self.versions
        return (AdapterVersionConfig(name=ONLY_VERSION, source=self.source),)

    @model_validator(mode="after")
    def _versions_share_all_traffic(self) -> Self:
        if (self.source is None) == (not self.versions):
            has = "has both `source` and `versions`" if self.versions else "has no weights"
            refuse([(("source",), f"this adapter {has}; write `source`, or `versions` with a source each")])
        refuse(share_problems("versions", self.served))
        refuse(rollout_problems("versions", self.served, self.rollout))
        return self


def adapter_problems(model: ModelConfig) -> Problems:
    """Check a model's adapters: their names differ, and every variant that may get their requests has room for them."""
    yield from repeated("adapter names", ((("adapters", i, "name"), each.name) for i, each in enumerate(model.adapters)))
    if not model.adapters:
        return
    for v, variant in enumerate(model.variants):
        if variant.engine.lora is None and (variant.weight or variant.name in _others(model)):
            message = f"model {model.name!r} has adapters, and this variant would get their requests; add `engine.lora: {{}}`"
            yield ("variants", v, "engine", "lora"), message


def _others(model: ModelConfig) -> set[str]:
    """Return variants that get requests whatever their declared weight is."""
    rollout = {model.rollout.variant, model.rollout.baseline} if model.rollout is not None else set()
    return rollout | ({model.shadow.variant} if model.shadow is not None else set())


def pin_problems(config: PlatformConfig) -> Problems:
    """Find pipeline versions that pin an adapter's requests to a variant without room for it."""
    variants = {(model.name, v.name): v for model in config.models for v in model.variants}
    for p, pipeline in enumerate(config.pipelines):
        for i, version in enumerate(pipeline.versions):
            base, _, adapter = version.model.partition(":")
            pinned = variants.get((base, version.variant or ""))
            if adapter and pinned is not None and pinned.engine.lora is None:
                path: FieldPath = ("pipelines", p, "versions", i, "variant")
                yield path, f"variant {pinned.name!r} of {base!r} takes no adapters; add `engine.lora: {{}}` to it"
