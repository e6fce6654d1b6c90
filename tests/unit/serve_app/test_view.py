from __future__ import annotations

import hashlib

import pytest

from serve_app.config import ApiKeyConfig, AuthConfig, PipelineConfig
from serve_app.errors import Forbidden, Unauthenticated, UnknownModel
from serve_app.view import ANONYMOUS, RoutingView
from tests.unit.serve_app.fakes import HITS, PIPELINE, document, model


def api_key(name: str, key: str, **more: object) -> ApiKeyConfig:
    return ApiKeyConfig.model_validate({"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more})


ANN = api_key("ann", "secret", models=("chat",))
BOB = api_key("bob", "other", admin=True)
VIEW = RoutingView(document(auth=AuthConfig(keys=(ANN, BOB))))


@pytest.mark.parametrize("offered", ["Bearer secret", "bearer  secret "])
def test_a_key_is_known_by_its_digest(offered: str) -> None:
    assert VIEW.authenticate(offered) == ANN


@pytest.mark.parametrize("offered", [None, "", "secret", "Basic secret", "Bearer", "Bearer wrong", "Bearer \xff"])
def test_any_other_key_is_refused(offered: str | None) -> None:
    with pytest.raises(Unauthenticated):
        VIEW.authenticate(offered)


def test_without_keys_everybody_may_do_everything() -> None:
    view = RoutingView(document())
    assert view.authenticate(None) == view.authenticate("Bearer x") == ANONYMOUS
    view.authorize(ANONYMOUS, "docs")
    view.authorize_admin(ANONYMOUS)


def test_a_key_may_be_bound_to_models() -> None:
    VIEW.authorize(ANN, "chat")
    VIEW.authorize(BOB, "docs")
    with pytest.raises(Forbidden) as caught:
        VIEW.authorize(ANN, "docs")
    assert caught.value.param == "model"


def test_what_is_not_served_is_unknown_to_everybody() -> None:
    with pytest.raises(UnknownModel):
        VIEW.authorize(ANN, "nope")


def test_only_admins_read_the_status() -> None:
    VIEW.authorize_admin(BOB)
    with pytest.raises(Forbidden, match="admin: true"):
        VIEW.authorize_admin(ANN)


def test_a_conversation_has_one_variant_and_one_version() -> None:
    view = RoutingView(document(models=(model(("canary", 0), ("stable", 100)),)))
    assert view.variant(view.models["chat"], "k") == "stable"
    version, prompt = view.version(PIPELINE, "k")
    assert (version.name, prompt.render("Why?", HITS)) == ("v1", "[1] D > B: one\n[2] D: two\nQ: Why?")


def test_a_document_with_a_wrong_prompt_or_sum_is_refused() -> None:
    version = PIPELINE.versions[0].model_copy(update={"prompt": "{{ nope }}"})
    with pytest.raises(ValueError, match="not `nope`"):
        RoutingView(document(pipelines=(PipelineConfig(name="docs", versions=(version,)),)))
    with pytest.raises(ValueError, match="sum to 100"):
        RoutingView(document(models=(model(("stable", 99)),)))
