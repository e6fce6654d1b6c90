"""What every section of the configuration is made of: the frozen model, and the texts that fields hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
# "llm.<model>.<variant>" and Kubernetes labels are made from names, so names are DNS labels.
Name = Annotated[str, StringConstraints(pattern=DNS_LABEL, max_length=40)]
# What clients send as `model`: a model, or an adapter of it as `MODEL:ADAPTER`.
PUBLIC_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(:[a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"
PublicName = Annotated[str, StringConstraints(pattern=PUBLIC_NAME, max_length=81)]
Text = Annotated[str, StringConstraints(min_length=1)]


def public_name(model: str, adapter: str) -> str:
    """Return what clients call an adapter of a model. No other name can be it: names have no colon."""
    return f"{model}:{adapter}"


class Config(BaseModel):
    """Base of every section: frozen, and a typo is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        # Pydantic reads True as 1, and YAML reads a bare `yes` as True: `replicas: yes` would mean one replica.
        wants = cls.model_fields[info.field_name].annotation if info.field_name else None
        if isinstance(value, bool) and wants in (int, float, int | None, float | None):
            raise PydanticCustomError("number_type", "expected a number, got true or false")
        return value
