from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from serve_app.config import ApiKeyConfig, AuthConfig, PipelineConfig
from serve_app.credentials import hash_of
from serve_app.errors import Forbidden, Unauthenticated, UnknownModel
from serve_app.prompts import Turn
from serve_app.view import ANONYMOUS, RoutingView
from tests.unit.serve_app.fakes import HITS, PIPELINE, document, model

NOW = datetime(2030, 1, 31, tzinfo=UTC)


def api_key(name: str, key: str, **more: object) -> ApiKeyConfig:
    return ApiKeyConfig.model_validate({"name": name, "hash": hash_of(key), **more})


ANN_KEY, BOB_KEY = "manta_ann_secret", "manta_bob_other"
ANN = api_key("ann", ANN_KEY, models=("chat",))
BOB = api_key("bob", BOB_KEY, admin=True)
VIEW = RoutingView(document(auth=AuthConfig(keys=(ANN, BOB))))


@pytest.mark.parametrize("offered", [f"Bearer {ANN_KEY}", f"bearer  {ANN_KEY} "])
def test_a_key_is_known_by_its_hash(offered: str) -> None:
    assert VIEW.authenticate(offered) == ANN


def test_a_key_may_come_as_anthropics_sdks_send_it() -> None:
    assert VIEW.authenticate(None, ANN_KEY) == ANN


@pytest.mark.parametrize("offered", [None, "", ANN_KEY, f"Basic {ANN_KEY}", "Bearer", "Bearer wrong", "Bearer \xff"])
def test_any_other_key_is_refused(offered: str | None) -> None:
    with pytest.raises(Unauthenticated):
        VIEW.authenticate(offered)


def test_an_expired_key_is_refused_by_name_of_the_reason() -> None:
    key = api_key("ann", ANN_KEY, expires_at=NOW)
    times = [NOW - timedelta(seconds=1), NOW]
    view = RoutingView(document(auth=AuthConfig(keys=(key,))), now=lambda: times.pop(0))
    assert view.authenticate(f"Bearer {ANN_KEY}") == key
    with pytest.raises(Unauthenticated, match="expired"):
        view.authenticate(f"Bearer {ANN_KEY}")


def test_a_file_of_keys_lets_nobody_in_until_it_is_read() -> None:
    view = RoutingView(document(auth=AuthConfig(keys_file="/keys.yaml")))
    for offered in (None, f"Bearer {ANN_KEY}"):
        with pytest.raises(Unauthenticated):
            view.authenticate(offered)
    view.use_key_file((ANN,))
    assert view.authenticate(f"Bearer {ANN_KEY}") == ANN
    view.use_key_file(())
    with pytest.raises(Unauthenticated):
        view.authenticate(f"Bearer {ANN_KEY}")


def test_keys_of_the_file_stand_beside_those_of_the_configuration() -> None:
    view = RoutingView(document(auth=AuthConfig(keys=(ANN,), keys_file="/keys.yaml")))
    view.use_key_file((BOB,))
    assert (view.authenticate(None, ANN_KEY), view.authenticate(None, BOB_KEY)) == (ANN, BOB)


def test_a_key_may_be_bound_to_collections() -> None:
    assert VIEW.may_search(ANN, "books")
    bound = ANN.model_copy(update={"collections": ("books",)})
    assert (VIEW.may_search(bound, "books"), VIEW.may_search(bound, "letters")) == (True, False)


def test_a_key_without_a_tenant_is_its_own() -> None:
    assert (ANN.tenant_name, api_key("ann", ANN_KEY, tenant="acme").tenant_name) == ("ann", "acme")


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


def test_a_version_has_a_template_for_its_query() -> None:
    version = {**PIPELINE.versions[0].model_dump(), "condense": {"prompt": "{{ history[0].text }}/{{ question }}"}}
    pipeline = PipelineConfig.model_validate({"name": "docs", "versions": [version]})
    _, prompt = RoutingView(document(pipelines=(pipeline,))).version(pipeline, "k")
    assert prompt.render_condense("Why?", [Turn("user", "Who?")]) == "Who?/Why?"


def test_a_document_with_a_wrong_prompt_or_sum_is_refused() -> None:
    version = PIPELINE.versions[0].model_copy(update={"prompt": "{{ nope }}"})
    with pytest.raises(ValueError, match="not `nope`"):
        RoutingView(document(pipelines=(PipelineConfig(name="docs", versions=(version,)),)))
    with pytest.raises(ValueError, match="sum to 100"):
        RoutingView(document(models=(model(("stable", 99)),)))
