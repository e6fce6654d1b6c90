from __future__ import annotations

import pytest

from serve_app.errors import BadRequest, Forbidden, UnknownModel
from serve_app.inference import Inference, check_choices, model_of
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import call, document, entry, gateway, snapshot


def inference() -> Inference:
    made = gateway()
    made.update(snapshot(entry("r1"), routing=document()))
    return Inference(made)


@pytest.mark.parametrize("texts", [[], [""], ["a", " "], ["\ud800"]], ids=["none", "empty", "blank", "surrogate"])
async def test_a_text_that_cannot_be_embedded_is_refused(texts: list[str]) -> None:
    with pytest.raises(BadRequest) as caught:
        await inference().embed(ANONYMOUS, "minilm", texts)
    assert caught.value.param == "input"


async def test_vectors_come_with_the_tokens_they_cost() -> None:
    embeddings = await inference().embed(ANONYMOUS, "minilm", ["a b", "c"])
    assert (embeddings.vectors, embeddings.tokens) == ([[3.0, 0.5], [1.0, 0.5]], 3)


async def test_an_unknown_embedder_and_one_the_key_does_not_cover_are_told_apart() -> None:
    with pytest.raises(UnknownModel):
        await inference().embed(ANONYMOUS, "nope", ["a"])
    with pytest.raises(Forbidden):
        await inference().embed(ANONYMOUS.model_copy(update={"models": ("chat",)}), "minilm", ["a"])


async def test_a_model_answers() -> None:
    assert (await inference().answer(call())).variant == "stable"


def test_a_body_that_names_no_model_is_refused() -> None:
    with pytest.raises(BadRequest, match="model"):
        model_of({"model": 3})


def test_choices_are_bounded() -> None:
    with pytest.raises(BadRequest, match="at most 2"):
        check_choices({"n": 3}, most=2)
