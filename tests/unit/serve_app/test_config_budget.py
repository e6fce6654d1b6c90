"""`scaling.max_accelerators` must hold what is always there, and one replica of whatever may wake."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.config import PlatformConfig
from serve_app.config_rules import PlacedError

TWO = {"tensor_parallel_size": 2}
FOUR = {"tensor_parallel_size": 4}
SLEEPER = {"min_replicas": 0, "max_replicas": 4}


def variant(name: str = "v", **more: Any) -> dict[str, Any]:
    return {"name": name, "source": "org/m", "accelerator": "L40S", **more}


def platform(*variants: dict[str, Any], budget: int | None, **more: Any) -> dict[str, Any]:
    models = [{"name": f"m{i}", "variants": [each]} for i, each in enumerate(variants)]
    return {"models": models, "scaling": {"max_accelerators": budget}, **more}


def problems(document: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    """Return the broken rules."""
    try:
        PlatformConfig.model_validate(document)
    except ValidationError as err:
        [found] = err.errors()
        placed = found["ctx"]["error"]
        assert isinstance(placed, PlacedError)
        return list(placed.problems)
    return []


EMBEDDER = {"embedders": [{"name": "e", "source": "org/e", "accelerator": "L40S", "replicas": 2}]}


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(platform(variant(replicas=9), budget=None), id="no-budget"),
        pytest.param(platform(variant(replicas=2), variant(engine=TWO), budget=4), id="just-fits"),
        pytest.param(
            platform(variant(autoscaling=SLEEPER, engine=TWO), variant(replicas=2), budget=4), id="wakes-into-the-rest"
        ),
        pytest.param(platform(variant(accelerator=None, replicas=9), budget=1), id="on-cpu"),
        pytest.param(platform(variant(replicas=2), budget=4, **EMBEDDER), id="with-an-embedder"),
        pytest.param(platform(variant(autoscaling={"max_replicas": 9}), budget=1), id="most-may-be-over"),
    ],
)
def test_what_fits_is_accepted(document: dict[str, Any]) -> None:
    assert problems(document) == []


@pytest.mark.parametrize(
    ("document", "total"),
    [
        pytest.param(platform(variant(replicas=2), variant(engine=TWO, replicas=2), budget=4), 6, id="fixed"),
        pytest.param(
            platform(variant(autoscaling={"min_replicas": 3, "max_replicas": 9}), variant(engine=TWO), budget=4), 5, id="scaled"
        ),
        pytest.param(platform(variant(replicas=3), budget=4, **EMBEDDER), 5, id="with-an-embedder"),
        pytest.param(platform(budget=1, **EMBEDDER), 2, id="embedders-alone"),
    ],
)
def test_the_fewest_replicas_of_all_must_fit_together(document: dict[str, Any], total: int) -> None:
    most = document["scaling"]["max_accelerators"]
    message = (
        f"the fewest replicas of all need {total} accelerators together, the limit is {most}; "
        "raise it, or lower `min_replicas` or `replicas` of some"
    )
    assert problems(document) == [(("scaling", "max_accelerators"), message)]


@pytest.mark.parametrize("scaling", [{}, {"autoscaling": SLEEPER}], ids=["awake", "asleep"])
def test_one_replica_must_fit_alone(scaling: dict[str, Any]) -> None:
    message = "one replica needs 2 accelerators, `scaling.max_accelerators` is 1"
    path = ("models", 0, "variants", 0, "engine")
    assert problems(platform(variant(engine=TWO, **scaling), budget=1)) == [(path, message)]


def test_what_sleeps_must_fit_beside_what_never_sleeps() -> None:
    message = (
        "it could never wake: one replica needs 2 accelerators, and the fewest replicas of all others hold 3 of the 4 of "
        "`scaling.max_accelerators`"
    )
    found = problems(platform(variant(replicas=3), variant(autoscaling=SLEEPER, engine=TWO), budget=4))
    assert found == [(("models", 1, "variants", 0, "engine"), message)]


@pytest.mark.parametrize(
    ("others", "total"),
    [
        pytest.param([variant(engine=FOUR), variant(replicas=2)], 6, id="beside-it"),
        pytest.param([variant(engine=FOUR, replicas=2)], 8, id="its-own-replicas"),
        pytest.param([variant(engine=FOUR, autoscaling=SLEEPER), variant(replicas=4)], 4, id="while-it-sleeps"),
    ],
)
def test_a_variant_that_is_too_large_hides_no_other_problem(others: list[dict[str, Any]], total: int) -> None:
    alone = "one replica needs 4 accelerators, `scaling.max_accelerators` is 3"
    together = (
        f"the fewest replicas of all need {total} accelerators together, the limit is 3; "
        "raise it, or lower `min_replicas` or `replicas` of some"
    )
    assert problems(platform(*others, budget=3)) == [
        (("models", 0, "variants", 0, "engine"), alone),
        (("scaling", "max_accelerators"), together),
    ]
