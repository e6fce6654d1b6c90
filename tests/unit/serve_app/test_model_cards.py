from __future__ import annotations

import pytest

from serve_app.config import ApiKeyConfig
from serve_app.model_cards import model_cards
from serve_app.rollout.document import RoutedModel, RoutedVariant
from serve_app.view import ANONYMOUS, RoutingView
from tests.unit.serve_app.fakes import document, model

TENANT = ApiKeyConfig(name="ann", hash=f"sha256:{'0' * 32}:{'1' * 64}")


def routed(*lengths: int | None, engine: str = "vllm") -> RoutedModel:
    share = 100 // len(lengths)
    variants = [
        RoutedVariant(name=f"v{i}", weight=share, max_leases=2, engine=engine, max_model_len=length)
        for i, length in enumerate(lengths)
    ]
    return RoutedModel(name="chat", variants=tuple(variants))


def test_admins_see_how_traffic_is_split() -> None:
    view = RoutingView(document(models=(model(("canary", 10), ("stable", 90)),)))
    chat, docs, _ = model_cards(view, ANONYMOUS)
    assert [(v["name"], v["weight"]) for v in chat["variants"]] == [("canary", 10), ("stable", 90)]
    assert docs["versions"] == [{"name": "v1", "weight": 100, "model": "chat"}]


def test_other_callers_see_no_variants_but_that_an_engine_is_simulated() -> None:
    cards = model_cards(RoutingView(document()), TENANT)
    assert cards == [
        {"id": "chat", "object": "model", "created": 0, "owned_by": "manta", "kind": "model", "engine": "simulated"},
        {"id": "docs", "object": "model", "created": 0, "owned_by": "manta", "kind": "pipeline"},
        {"id": "minilm", "object": "model", "created": 0, "owned_by": "manta", "kind": "embedder"},
    ]


@pytest.mark.parametrize(
    ("lengths", "told"),
    [((8192, 4096), 4096), ((8192, None), None), ((None,), None)],
    ids=["what-every-variant-takes", "not-known-of-one", "not-known"],
)
def test_the_longest_prompt_is_told_where_it_is_known(lengths: tuple[int | None, ...], told: int | None) -> None:
    [card, *_] = model_cards(RoutingView(document(models=(routed(*lengths),))), TENANT)
    assert (card.get("max_model_len"), card["engine"]) == (told, "vllm")
