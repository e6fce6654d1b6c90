"""LogsConfig: what is written of each request, and what never is."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from serve_app.config_fields import Config
from serve_app.config_rules import Problems, refuse
from serve_app.linear_regex import LinearRegex

MOST_EXPRESSIONS = 20
Expression = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class LogsConfig(Config):
    """The log of requests; changed in place."""

    requests: bool = Field(True, description="Write one JSON line per request.")
    sample_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of the requests that went well which get a line; the others always do."
    )
    prompts: bool = Field(
        False, description="Write what clients ask too, cut and with secrets masked. Answers are never written."
    )
    prompt_chars: int = Field(
        2000, ge=1, le=10_000, description="Most characters of a request's prompt; the latest come first."
    )
    mask: tuple[Expression, ...] = Field(
        (), description="Regular expressions (RE2) of what else is masked in prompts, such as `EMP-[0-9]{6}`; at most 20."
    )

    @model_validator(mode="after")
    def _expressions_work(self) -> Self:
        refuse(_problems(self.mask))
        return self


def _problems(mask: tuple[str, ...]) -> Problems:
    if len(mask) > MOST_EXPRESSIONS:  # each costs every prompt about 0.1 ms
        yield ("mask",), f"at most {MOST_EXPRESSIONS} expressions, got {len(mask)}; join some with `|`"
        return
    for i, expression in enumerate(mask):
        try:
            LinearRegex(expression)
        except ValueError as err:
            yield ("mask", i), f"{expression!r} cannot be used: {err}"
