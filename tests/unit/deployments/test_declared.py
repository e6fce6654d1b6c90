from __future__ import annotations

from typing import Any

import pytest

from deployments.declared import declared
from deployments.scaling_document import scaling_document
from serve_app.config import PlatformConfig
from serve_app.rollout.document import routing_document

PLATFORM: dict[str, Any] = {
    "models": [
        {
            "name": "chat",
            "variants": [
                {"name": "stable", "source": "org/m", "weight": 90},
                {"name": "canary", "source": "org/n", "weight": 10},
            ],
            "rollout": {"steps": [{"weight": 50, "pause": "10m"}]},
        }
    ],
    "scaling": {"max_accelerators": 4},
}


def test_both_documents_are_those_of_the_platform() -> None:
    config = PlatformConfig.model_validate(PLATFORM)
    made = declared({"platform": PLATFORM})
    assert (made.routing, made.scaling) == (routing_document(config), scaling_document(config))


def test_durations_may_be_written_either_way() -> None:
    rollout = {"steps": [{"weight": 50, "pause": 600.0}]}
    seconds = {**PLATFORM, "models": [{**PLATFORM["models"][0], "rollout": rollout}]}
    assert declared({"platform": seconds}) == declared({"platform": PLATFORM})


def test_an_empty_platform_is_one() -> None:
    assert declared({"platform": {}}).routing == routing_document(PlatformConfig())


VARIANT = {"name": "stable", "source": "org/m"}
KEY = {"name": "ann", "hash": "sha256:not-a-hash"}


@pytest.mark.parametrize(
    ("user_config", "message"),
    [
        ({}, "the user_config has no `platform`, which holds the platform's document"),
        ({"platform": {"modles": []}}, "platform: unknown field `modles`, did you mean `models`?"),
        (
            {"platform": {"models": [{"name": "chat", "variants": [{**VARIANT, "weight": 90}]}]}},
            "platform: models[0].variants: variant weights must sum to 100, got 90",
        ),
        ({"platform": {"scaling": {"max_accelerators": 0}}}, "platform: scaling.max_accelerators: must be at least 1, got 0"),
        (
            {"platform": {"auth": {"keys": [KEY]}}},
            "platform: auth.keys[0].hash: expected `sha256:<salt>:<digest>` as `manta keys create NAME` prints it",
        ),
    ],
    ids=["nothing", "typo", "sum", "scaling", "a-value-that-is-not-repeated"],
)
def test_what_is_wrong_is_said_in_plain_words(user_config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="platform") as caught:
        declared(user_config)
    assert str(caught.value) == message


def test_a_prompt_that_is_no_template_is_refused() -> None:
    version = {"name": "v1", "embedder": "e", "collection": "c", "prompt": "{{ nope }}", "model": "chat"}
    pipelines = [{"name": "docs", "versions": [version]}]
    embedders = [{"name": "e", "source": "org/e"}]
    with pytest.raises(ValueError, match="nope"):
        declared({"platform": {**PLATFORM, "pipelines": pipelines, "embedders": embedders}})
