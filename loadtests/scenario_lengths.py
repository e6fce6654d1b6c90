"""The scenario's part on lengths: how many tokens prompts and answers have."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from serve_app.config_fields import Config
from serve_app.config_rules import PlacedError

MOST_TOKENS = 1_000_000


class Spread(Config):
    """How many tokens: always the same number, or log-normal."""

    tokens: int | None = Field(None, ge=1, le=MOST_TOKENS, description="Always so many.")
    median: float = Field(1.0, ge=1, le=MOST_TOKENS, description="Median of a log-normal distribution.")
    mean: float = Field(1.0, ge=1, le=MOST_TOKENS, description="Its mean, at least the median.")
    most: int = Field(MOST_TOKENS, ge=1, le=MOST_TOKENS, description="What is longer is cut to this.")

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        given = self.model_fields_set
        if given not in ({"tokens"}, {"median", "mean", "most"}):
            raise PlacedError([((), "give `tokens`, or `median`, `mean` and `most`")])
        if self.mean < self.median:
            raise PlacedError([(("mean",), f"must be at least `median`, {self.median:g}, as a log-normal has it")])
        return self


class Lengths(Config):
    """Lengths of prompts and answers. A preset gives what is not said."""

    preset: Literal["sharegpt", "rag", "azure-conversation", "azure-code"] = Field(
        "sharegpt", description="What is not said comes from here: chats, long prompts with passages, or Azure's traces."
    )
    prompt: Spread | None = Field(None, description="Tokens of a prompt.")
    output: Spread | None = Field(None, description="Tokens of an answer: `max_tokens` of the request.")
    ignore_eos: bool = Field(True, description="Whether the engine must not end earlier (vLLM's `ignore_eos`).")
