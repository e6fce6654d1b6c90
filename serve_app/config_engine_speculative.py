"""Speculative decoding: something cheap drafts tokens, and the model checks several of them in one step."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from serve_app.config_fields import Config, Text
from serve_app.config_rules import Problems, refuse
from serve_app.config_sources import HUB_ID

# vLLM's methods, without those that load code of one's own and the older names of `mtp`.
SpeculativeMethod = Literal[
    "ngram", "ngram_gpu", "suffix", "draft_model", "eagle", "eagle3", "mtp", "medusa", "mlp_speculator", "dflash", "dspark"
]
NGRAM = ("ngram", "ngram_gpu")
WITHOUT_MODEL = (*NGRAM, "suffix")
MAY_LACK_MODEL = (*WITHOUT_MODEL, "mtp", "dspark")  # the model's own checkpoint may hold the layers that draft
SET_BY_VLLM = ("target_model_config", "target_parallel_config", "draft_model_config", "draft_parallel_config")


def _hub_or_folder(source: str) -> str:
    if source.startswith("s3://"):
        fix = "write a Hugging Face id (org/name), or a folder that every node has"
        raise ValueError(f"{source!r} is in S3, and only `source` is fetched from there; {fix}")
    if HUB_ID.fullmatch(source) or source.startswith(("/", "./", "../", "~")):
        return source
    raise ValueError(f"{source!r} is no source; write a Hugging Face id (org/name) or a folder (./models/x)")


HubOrFolder = Annotated[str, AfterValidator(_hub_or_folder)]


class SpeculativeConfig(Config):
    """Speculative decoding (vLLM's `speculative_config`)."""

    method: SpeculativeMethod | None = Field(
        None, description="Who drafts: `ngram` repeats what the prompt holds; absent: told by the draft `model`."
    )
    model: HubOrFolder | None = Field(None, description="Hugging Face id or folder of the draft model or head.")
    num_speculative_tokens: int | None = Field(
        None, ge=1, description="Tokens drafted in each step; needed by every method but `suffix`."
    )
    prompt_lookup_max: int | None = Field(None, ge=1, description="Longest run of tokens that `ngram` looks up; it needs it.")
    prompt_lookup_min: int | None = Field(
        None, ge=1, description="Shortest run of tokens that `ngram` looks up. Absent: as long as the longest."
    )
    draft_tensor_parallel_size: int | None = Field(
        None, ge=1, description="Ranks that share the draft model's layers: 1, or as many as the model's."
    )
    quantization: Text | None = Field(None, description="How the draft model's weights are quantized.")
    max_model_len: int | None = Field(None, ge=1, description="Longest sequence that is drafted for, in tokens.")
    revision: Text | None = Field(None, description="Branch, tag or commit of the draft model's Hugging Face id.")
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Further fields of vLLM's `speculative_config` by their name, checked by vLLM."
    )

    @model_validator(mode="after")
    def _method_has_what_it_needs(self) -> Self:
        refuse((*self._draft_problems(), *self._lookup_problems(), *self._option_problems()))
        return self

    def _draft_problems(self) -> Problems:
        if self.method is None and self.model is None:
            yield ("method",), "name who drafts: a `method` such as ngram, or a draft `model`"
        elif self.method in WITHOUT_MODEL and self.model is not None:
            yield ("model",), f"`{self.method}` drafts without a model; leave this out, or choose another method"
        elif self.model is None and self.method not in MAY_LACK_MODEL:
            yield ("model",), f"required by `{self.method}`, but missing; name the draft model"
        if self.num_speculative_tokens is None and self.method != "suffix":
            yield ("num_speculative_tokens",), "required, but missing; say how many tokens are drafted in each step, such as 3"

    def _lookup_problems(self) -> Problems:
        low, high = self.prompt_lookup_min, self.prompt_lookup_max
        if self.method in NGRAM:
            if high is None:
                yield ("prompt_lookup_max",), f"required by `{self.method}`, but missing; 5 is a good start"
            elif low is not None and low > high:
                yield ("prompt_lookup_min",), f"must be at most `prompt_lookup_max` ({high}), got {low}"
            return
        for name, value in (("prompt_lookup_max", high), ("prompt_lookup_min", low)):
            if value is not None:
                yield (name,), "only the methods ngram and ngram_gpu look tokens up; leave this out"

    def _option_problems(self) -> Problems:
        own = type(self).model_fields
        for name in sorted(self.options):
            if name in own:
                yield ("options", name), f"set `speculative.{name}` instead"
            elif name in SET_BY_VLLM:
                yield ("options", name), "set by the engine itself; leave this out"
