from __future__ import annotations

from pathlib import Path

import pytest

from deployments.llm.sources import adapter_folder, weights_folder
from serve_app.errors import MissingWeights


def test_a_hub_id_is_left_to_the_engine() -> None:
    assert str(weights_folder("org/model")) == "org/model"


def test_a_model_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert str(weights_folder(str(tmp_path))) == str(tmp_path)


def test_a_missing_folder_names_the_field() -> None:
    with pytest.raises(MissingWeights, match="/nope/nope") as caught:
        weights_folder("/nope/nope")
    assert caught.value.param == "source"


def test_an_adapters_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert adapter_folder(str(tmp_path)).path == str(tmp_path)


def test_a_folder_that_is_no_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"is no adapter folder: it has no adapter_config.json"):
        adapter_folder(str(tmp_path))


def test_an_adapter_on_the_hub_is_downloaded_by_the_hubs_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda source: {"org/lora": str(tmp_path)}[source])
    assert str(adapter_folder("org/lora")) == str(tmp_path)


def test_an_adapter_that_the_hub_does_not_give_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str) -> str:
        raise OSError("no such repository")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(MissingWeights, match=r"adapter 'org/lora' cannot be downloaded from the hub: no such repository"):
        adapter_folder("org/lora")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda _: str(tmp_path))
    with pytest.raises(MissingWeights, match=r"'org/lora' on the hub is no adapter"):
        adapter_folder("org/lora")
