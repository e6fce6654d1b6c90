"""Folders that a configuration names and that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.config_error import ConfigError
from serve_app.loading import load_platform

VARIANT = "models: [{name: chat, variants: [{name: a, source: a/b, engine: {%s}}]}]"


def test_a_draft_model_that_is_missing_is_not_told_to_lie_in_s3(tmp_path: Path) -> None:
    file = tmp_path / "platform.yaml"
    file.write_text(VARIANT % "speculative: {model: ./draft, num_speculative_tokens: 3}")
    with pytest.raises(ConfigError) as caught:
        load_platform(file)
    fix = "put the model there, on every node, or write a Hugging Face id (org/name)"
    told = f"the model folder {str(tmp_path / 'draft')!r} does not exist; {fix}"
    assert [problem.message for problem in caught.value.problems] == [told]
