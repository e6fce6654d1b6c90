from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from deployments.llm.adapter_files import UnfitAdapter, check_files


def written(folder: Path, *, weights: str | None = "adapter_model.safetensors", **config: Any) -> str:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, **config}))
    if weights:
        (folder / weights).write_bytes(b"weights")
    return str(folder)


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt"])
def test_an_adapter_as_peft_saves_it_is_taken(tmp_path: Path, weights: str) -> None:
    folder = written(tmp_path, weights=weights, base_model_name_or_path="org/other")
    assert check_files(folder, 8) == check_files(folder, 16)


@pytest.mark.parametrize("pattern", [None, {}, {"q_proj": 16}])
def test_an_adapter_with_ranks_of_its_modules_that_fit_is_taken(tmp_path: Path, pattern: dict[str, int] | None) -> None:
    assert check_files(written(tmp_path, rank_pattern=pattern), 16)


def test_other_files_have_another_digest(tmp_path: Path) -> None:
    folder = written(tmp_path)
    before = check_files(folder, 8)
    file = tmp_path / "adapter_model.safetensors"
    os.utime(file, ns=(0, 0))
    touched = check_files(folder, 8)
    file.write_bytes(b"longer weights")
    os.utime(file, ns=(0, 0))
    assert len({before, touched, check_files(folder, 8)}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"r": 32}, "rank 32 is over the engine's 16; raise `engine.lora.max_rank`", id="rank"),
        pytest.param(
            {"rank_pattern": {"q_proj": 8, "v_proj": 64, "k_proj": 32}},
            "rank 64 of `v_proj` in `rank_pattern` is over the engine's 16; raise `engine.lora.max_rank`",
            id="rank-of-a-module",
        ),
        pytest.param({"rank_pattern": [64]}, r"`rank_pattern` must be ranks by module, got \[64\]", id="no-pattern"),
        pytest.param(
            {"rank_pattern": {"q_proj": "64"}},
            "rank of `q_proj` in `rank_pattern` must be 1 or more, got '64'",
            id="no-rank-of-a-module",
        ),
        pytest.param({"r": None}, "`r` must be the adapter's rank, got None", id="no-rank"),
        pytest.param({"r": True}, "`r` must be the adapter's rank, got True", id="a-truth"),
        pytest.param({"r": 0}, "`r` must be the adapter's rank, got 0", id="none"),
        pytest.param({"peft_type": "PREFIX_TUNING"}, "describes no LoRA adapter", id="another-kind"),
        pytest.param({"weights": None}, "has no weights; one of adapter_model.safetensors", id="no-weights"),
    ],
)
def test_what_the_engine_cannot_run_is_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnfitAdapter, match=message):
        check_files(written(tmp_path, **changes), 16)


@pytest.mark.parametrize("text", [None, "{", "[]", "\x00"])
def test_a_config_that_cannot_be_read_is_told(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(UnfitAdapter, match=r"adapter_config\.json"):
        check_files(str(tmp_path), 16)
