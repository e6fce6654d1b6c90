"""`max_replicas_per_node` is refused where Ray Serve could not keep it, or where the declared nodes are too few."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.config import PlatformConfig
from tests.unit.serve_app.test_config_budget import problems, variant

NODES = {"accelerators": [{"type": "L40S", "per_node": 8, "max_nodes": 2}]}
PATH = ("models", 0, "variants", 0, "max_replicas_per_node")


def document(**more: Any) -> dict[str, Any]:
    return {"models": [{"name": "chat", "variants": [variant(**more)]}], **NODES}


@pytest.mark.parametrize(
    "settings",
    [
        {"replicas": 4},
        {"replicas": 2, "max_replicas_per_node": 1},
        {"replicas": 4, "max_replicas_per_node": 2, "engine": {"tensor_parallel_size": 2}},
        {"replicas": 9, "max_replicas_per_node": 1, "accelerator": None},
    ],
)
def test_what_the_nodes_can_keep_apart_is_accepted(settings: dict[str, Any]) -> None:
    assert problems(document(**settings)) == []


@pytest.mark.parametrize("settings", [{"replicas": 3}, {"autoscaling": {"min_replicas": 1, "max_replicas": 3}}])
def test_more_replicas_than_nodes_to_keep_them_apart_are_refused(settings: dict[str, Any]) -> None:
    [(path, message)] = problems(document(**settings, max_replicas_per_node=1))
    assert path == PATH
    assert message == "3 replicas, 1 a node, need more nodes than the 2 with L40S declared"


def test_replicas_of_several_stages_are_refused() -> None:
    [(path, message)] = problems(document(engine={"pipeline_parallel_size": 2}, max_replicas_per_node=1))
    assert path == PATH
    assert message == "Ray Serve takes no such limit where pipeline_parallel_size is over 1; leave it out"


@pytest.mark.parametrize("number", [0, 101, True, 1.5])
def test_only_what_serve_takes_is_accepted(number: object) -> None:
    for part in ({"router": {"max_replicas_per_node": number}}, {"retriever": {"max_replicas_per_node": number}}):
        with pytest.raises(ValidationError, match="max_replicas_per_node"):
            PlatformConfig.model_validate(part)
