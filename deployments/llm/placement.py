"""Placement: what one replica reserves of its node."""

from __future__ import annotations

from typing import Any

from serve_app.config import ANY_ACCELERATOR


def actor_options(*, cpus: float, accelerator: str | None, ranks: int) -> dict[str, Any]:
    """Return Ray's actor options for a replica of ``ranks`` processes on one node."""
    options: dict[str, Any] = {"num_cpus": cpus}
    if accelerator is not None:
        options["num_gpus"] = ranks
        if accelerator != ANY_ACCELERATOR:
            options["accelerator_type"] = accelerator
    return options
