"""Names of the Serve applications: one app per part, so that changing one never restarts another."""

from __future__ import annotations

ROLLOUTS_APP = "rollouts"
RETRIEVER_APP = "retriever"
ROUTER_APP = "router"
DOCUMENTS_APP = "documents"
LIMITS_APP = "limits"


def llm_app(model: str, variant: str) -> str:
    """Return the app of a model variant."""
    return f"llm.{model}.{variant}"


def embedder_app(name: str) -> str:
    """Return the app of an embedder."""
    return f"embedder.{name}"
