from __future__ import annotations

from pathlib import Path

import pytest

from deployments.llm.sources import weights_folder
from serve_app.errors import MissingWeights


def test_a_hub_id_is_left_to_the_engine() -> None:
    assert weights_folder("org/model") == "org/model"


def test_a_model_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert weights_folder(str(tmp_path)) == str(tmp_path)


def test_a_missing_folder_names_the_field() -> None:
    with pytest.raises(MissingWeights, match="/nope/nope") as caught:
        weights_folder("/nope/nope")
    assert caught.value.param == "source"
