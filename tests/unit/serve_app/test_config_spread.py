"""`max_replicas_per_node` is refused where Ray Serve would refuse it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.config import PlatformConfig
from tests.unit.serve_app.test_config_budget import problems, variant

PATH = ("models", 0, "variants", 0, "max_replicas_per_node")


def document(**more: Any) -> dict[str, Any]:
    return {"models": [{"name": "chat", "variants": [variant(**more)]}]}


@pytest.mark.parametrize("settings", [{}, {"engine": {"tensor_parallel_size": 2}}, {"accelerator": None}, {"replicas": 9}])
def test_replicas_of_one_stage_may_be_kept_apart(settings: dict[str, Any]) -> None:
    assert problems(document(**settings, max_replicas_per_node=1)) == []


def test_replicas_of_several_stages_are_refused() -> None:
    [(path, message)] = problems(document(engine={"pipeline_parallel_size": 2}, max_replicas_per_node=1))
    assert path == PATH
    assert message == "Ray Serve takes no such limit where pipeline_parallel_size is over 1; leave it out"


@pytest.mark.parametrize("number", [0, 101, True, 1.5])
def test_only_what_serve_takes_is_accepted(number: object) -> None:
    for part in ({"router": {"max_replicas_per_node": number}}, {"retriever": {"max_replicas_per_node": number}}):
        with pytest.raises(ValidationError, match="max_replicas_per_node"):
            PlatformConfig.model_validate(part)
