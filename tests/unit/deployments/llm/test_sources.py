from __future__ import annotations

from pathlib import Path

import pytest

from deployments.llm.sources import MissingWeights, weights_folder


def test_a_hub_id_is_left_to_the_engine() -> None:
    assert weights_folder("org/model") == "org/model"


def test_a_model_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert weights_folder(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("source", ["/nope/nope", "s3://bucket/prefix"], ids=["missing-folder", "s3"])
def test_what_cannot_be_loaded_names_the_field(source: str) -> None:
    with pytest.raises(MissingWeights, match=source) as caught:
        weights_folder(source)
    assert caught.value.param == "source"
