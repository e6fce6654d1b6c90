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


def labels_of(app: str) -> tuple[str, str]:
    """Return the model and the variant that an app is of: of an embedder its name and nothing, of other apps nothing."""
    _, _, of = app.partition(".")
    model, _, variant = of.partition(".")
    return model, variant
