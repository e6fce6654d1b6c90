"""docs/configuration.md says what the model says."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import config_docs


def test_the_page_is_up_to_date() -> None:
    assert config_docs.main(["--check"]) == 0, f"run {config_docs.COMMAND}"


def test_a_page_that_is_out_of_date_is_noticed_and_mended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config_docs, "PAGE", tmp_path / "configuration.md")
    assert [config_docs.main(["--check"]), config_docs.main([]), config_docs.main(["--check"])] == [1, 0, 0]
