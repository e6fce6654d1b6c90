from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import cast

import pytest

from serve_app.config import ApiKeyConfig
from serve_app.contracts import SearchQuery
from serve_app.documents.contract import Documents
from serve_app.errors import BadRequest, Forbidden, UnknownCollection, UnknownModel
from serve_app.inference import Inference, check_choices, model_of
from serve_app.limits.permit import Permit
from serve_app.rollout.document import RoutedVectorStores
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.fakes import SSE, FakeResponse, FakeRetriever, call, document, entry, gateway, leases_of, snapshot


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


async def test_a_collection_is_searched_with_the_embedder_its_pipeline_binds() -> None:
    retriever = FakeRetriever()
    made = gateway(retriever=retriever)
    made.update(snapshot(entry("r1"), routing=document()))
    hits = await Inference(made).search(ANONYMOUS, collection="books", query="Why?", top_k=2)
    assert [hit.chunk.id for hit in hits] == ["d#0", "d#1"]
    assert retriever.queries == [SearchQuery("books", "minilm", "Why?", 2)]


async def test_a_collection_that_no_pipeline_has_is_unknown() -> None:
    with pytest.raises(UnknownCollection):
        await inference().search(ANONYMOUS, collection="secret", query="Why?", top_k=2)


async def test_a_key_searches_only_its_collections() -> None:
    caller = ANONYMOUS.model_copy(update={"collections": ("others",)})
    with pytest.raises(Forbidden):
        await inference().search(caller, collection="books", query="Why?", top_k=2)


class Owner:
    """Vector stores of one tenant."""

    async def owns(self, tenant: str, store_id: str) -> bool:
        return (tenant, store_id) == ("ann", "vs_1")


@pytest.mark.parametrize(("tenant", "is_found"), [("ann", True), ("bob", False)])
async def test_a_vector_store_is_searched_by_its_tenant_alone(tenant: str, is_found: bool) -> None:
    retriever = FakeRetriever()
    made = gateway(retriever=retriever)
    made.stages = replace(made.stages, documents=cast(Documents, Owner()))
    stores = RoutedVectorStores(embedder="minilm", max_file_bytes=1024)
    made.update(snapshot(entry("r1"), routing=document(vector_stores=stores)))
    caller = ANONYMOUS.model_copy(update={"name": tenant})
    with contextlib.nullcontext() if is_found else pytest.raises(UnknownCollection):
        await Inference(made).search(caller, collection="vs_1", query="Why?", top_k=2)
    assert retriever.queries == ([SearchQuery("vs_1", "minilm", "Why?", 2)] if is_found else [])


@pytest.mark.parametrize(("query", "top_k", "param"), [(" ", 2, "query"), ("a", 0, "top_k"), ("a", 101, "top_k")])
async def test_a_search_out_of_bounds_names_the_field(query: str, top_k: int, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await inference().search(ANONYMOUS, collection="books", query=query, top_k=top_k)
    assert caught.value.param == param


class Counted:
    """Admits everybody, and knows what its permits are used for."""

    def __init__(self) -> None:
        self.released = 0
        self.tokens = 0

    async def admit(self, caller: ApiKeyConfig) -> Permit:
        return Permit(headers=(("x-ratelimit-limit-requests", "9"),), charge=self._charge, release=self._release)

    def _charge(self, tokens: int) -> None:
        self.tokens += tokens

    def _release(self) -> None:
        self.released += 1


def limited(*answers: FakeResponse | Exception) -> tuple[Inference, Counted]:
    made = gateway(*answers)
    made.update(snapshot(entry("r1"), routing=document()))
    admission = Counted()
    return Inference(made, admission=admission), admission


async def test_a_whole_answer_gives_its_permit_back_and_says_what_is_left() -> None:
    inference, admission = limited()
    reply = await inference.answer(call())
    assert (reply.headers, admission.released) == ((("x-ratelimit-limit-requests", "9"),), 1)


async def test_a_stream_holds_its_permit_until_it_ends() -> None:
    inference, admission = limited(FakeResponse((b"data: [DONE]\n\n",), content_type=SSE))
    reply = await inference.answer(call())
    assert not isinstance(reply.body, bytes)
    assert admission.released == 0
    assert b"".join([chunk async for chunk in reply.body]) == b"data: [DONE]\n\n"
    assert admission.released == 1


async def test_a_stream_that_is_closed_unread_gives_its_permit_back() -> None:
    inference, admission = limited(FakeResponse((b"data: 1\n\n",), content_type=SSE))
    reply = await inference.answer(call())
    assert not isinstance(reply.body, bytes)
    await reply.body.aclose()
    assert (admission.released, leases_of(inference.gateway)) == (1, 0)


async def test_a_request_that_fails_gives_its_permit_back() -> None:
    inference, admission = limited(RuntimeError("broken"))
    with pytest.raises(RuntimeError):
        await inference.answer(call())
    assert admission.released == 1


async def test_embeddings_are_charged() -> None:
    inference, admission = limited()
    embeddings = await inference.embed(ANONYMOUS, "minilm", ["a b", "c"])
    assert (admission.tokens, admission.released, embeddings.headers) == (3, 1, (("x-ratelimit-limit-requests", "9"),))
