"""Model cards: what a caller may name as ``model``, as GET /v1/models and ListModels show it."""

from __future__ import annotations

from typing import Any

from serve_app.config import ApiKeyConfig
from serve_app.contracts import EmbeddingFingerprint
from serve_app.view import RoutingView


def model_cards(view: RoutingView, caller: ApiKeyConfig) -> list[dict[str, Any]]:
    """Return a card for everything the caller may name as ``model``."""
    cards = [
        _card(m.name, "model", variants=[v.name for v in m.variants], engine=m.variants[0].engine) for m in view.models.values()
    ]
    cards += [_card(p.name, "pipeline", versions=[v.name for v in p.versions]) for p in view.pipelines.values()]
    cards += [_card(name, "embedder") for name in sorted(view.embedders)]
    return [card for card in cards if view.may_use(caller, card["id"])]


def _card(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "manta", "kind": kind, **more}


def embedder_card(card: dict[str, Any], fingerprint: EmbeddingFingerprint) -> dict[str, Any]:
    """Return an embedder's card with what its vectors are."""
    embedding = {
        "model": fingerprint.model,
        "dimension": fingerprint.dimension,
        "normalized": fingerprint.normalized,
    }
    return {**card, "embedding": embedding}
