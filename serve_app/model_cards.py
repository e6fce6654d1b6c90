"""Model cards: what a caller may name as ``model``, as GET /v1/models and ListModels show it."""

from __future__ import annotations

from typing import Any

from serve_app.config import ApiKeyConfig, PipelineConfig
from serve_app.contracts import EmbeddingFingerprint
from serve_app.rollout.document import RoutedModel
from serve_app.view import Callee, RoutingView

# OpenAI's clients want a number. A platform's document holds no time, so that it renders the same twice, and what a Router
# saw first is another second on each of them: 0 says "not known", and is the same everywhere and after every restart.
CREATED = 0


def model_cards(view: RoutingView, caller: ApiKeyConfig) -> list[dict[str, Any]]:
    """Return a card for everything the caller may name as ``model``; how traffic is split is for admins."""
    cards = [_model(view, model, caller) for model in view.models.values()]
    cards += [_adapter(view, callee, caller) for callee in view.adapters.values()]
    cards += [_pipeline(view, pipeline, caller) for pipeline in view.pipelines.values()]
    cards += [_card(name, "embedder") for name in sorted(view.embedders)]
    return [card for card in cards if view.may_use(caller, card["id"])]


def _model(view: RoutingView, model: RoutedModel, caller: ApiKeyConfig) -> dict[str, Any]:
    card = _card(model.name, "model")
    # That an engine is simulated is told to everybody, and of a model with both kinds too.
    engines = {v.engine for v in model.variants}
    card["engine"] = "simulated" if "simulated" in engines else model.variants[0].engine
    lengths = [v.max_model_len for v in model.variants]
    if None not in lengths:
        card["max_model_len"] = min(length for length in lengths if length is not None)
    if caller.admin:
        weights = view.split(model.name).weights
        card["variants"] = [{"name": v.name, "weight": weights[v.name], "engine": v.engine} for v in model.variants]
    return card


def _adapter(view: RoutingView, callee: Callee, caller: ApiKeyConfig) -> dict[str, Any]:
    """Return an adapter's card: its model's engine and length, and who its parent is, as vLLM's own cards say it."""
    model, adapter = callee
    assert adapter is not None  # noqa: S101  (the view's own)
    base = _model(view, model, caller)
    card = {**base, **_card(adapter.name, "adapter"), "parent": model.name}
    card.pop("variants", None)
    if caller.admin:
        weights = view.split(adapter.name).weights
        card["versions"] = [{"name": v.name, "weight": weights[v.name]} for v in adapter.versions]
    return card


def _pipeline(view: RoutingView, pipeline: PipelineConfig, caller: ApiKeyConfig) -> dict[str, Any]:
    card = _card(pipeline.name, "pipeline")
    if caller.admin:
        weights = view.split(pipeline.name).weights
        card["versions"] = [{"name": v.name, "weight": weights[v.name], "model": v.model} for v in pipeline.versions]
    return card


def _card(name: str, kind: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "manta", "kind": kind}


def embedder_card(card: dict[str, Any], fingerprint: EmbeddingFingerprint) -> dict[str, Any]:
    """Return an embedder's card with what its vectors are."""
    embedding = {
        "model": fingerprint.model,
        "dimension": fingerprint.dimension,
        "normalized": fingerprint.normalized,
    }
    return {**card, "embedding": embedding}
