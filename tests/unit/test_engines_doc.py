"""The examples of docs/engines.md are documents that are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serve_app.config import EngineConfig
from serve_app.loading import parse_platform

PAGE = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_is_valid_and_sets_something_of_the_engine(example: str) -> None:
    variants = [variant for model in parse_platform(example, name="example").models for variant in model.variants]
    assert [variant.engine for variant in variants if variant.engine == EngineConfig()] == []
    assert variants
