"""Answerer: who answers a call, as far as it is known yet. Fronts tell it with errors as well."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Answerer:
    """Filled in while a call is on its way."""

    model: str | None = None
    variant: str | None = None
    pipeline_version: str | None = None
    adapter_version: str | None = None
    is_taken: bool = False  # a replica of the variant has the request
    told_variant: str | None = None  # the client has been told this one: no other may answer now

    def take(self, variant: str) -> bool:
        """Note that a replica of the variant is about to get the request; return False if it must not."""
        if self.told_variant is not None and variant != self.told_variant:
            return False
        self.variant = variant
        self.is_taken = True
        return True
