from __future__ import annotations

from pathlib import Path

import pytest

from deployments.embedding_sources import model_identity, resolve
from serve_app.errors import BadRequest

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def model_folder(parent: Path, *, weights: bytes = b"1234") -> Path:
    folder = parent / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_the_bundled_model_needs_no_hub() -> None:
    folder = resolve(MINILM)
    assert isinstance(folder, Path)
    assert (folder / "tokenizer.json").is_file()
    assert model_identity(MINILM) == MINILM


def test_another_hub_id_stays_a_hub_id() -> None:
    assert resolve("org/other") == "org/other"


@pytest.mark.parametrize("make", [False, True], ids=["missing", "no-model-in-it"])
def test_an_unfit_folder_names_the_setting_and_a_fix(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "nothing"
    if make:
        folder.mkdir()
    with pytest.raises(BadRequest, match=r"`source`") as caught:
        resolve(str(folder))
    assert caught.value.param == "source"


def test_s3_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(BadRequest, match="copy the folder"):
        resolve("s3://bucket/model")


def test_a_folder_is_the_same_model_wherever_it_lies(tmp_path: Path) -> None:
    here, there = model_folder(tmp_path / "a"), model_folder(tmp_path / "b")
    assert model_identity(str(here)) == model_identity(str(there))
    assert model_identity(str(here)).startswith("mine@")


def test_other_weights_are_another_model(tmp_path: Path) -> None:
    here, there = model_folder(tmp_path / "a"), model_folder(tmp_path / "b", weights=b"12345")
    assert model_identity(str(here)) != model_identity(str(there))
