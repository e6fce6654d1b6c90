from __future__ import annotations

import re
from dataclasses import replace

import pytest

from autoscaling.simulation.latency import PRESETS, LatencyModel


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"step_s": 0.0}, "step_s must be over 0, got 0.0"),
        ({"step_s": float("nan")}, "step_s must be over 0, got nan"),
        ({"slots": 0}, "slots must be over 0, got 0"),
        ({"max_batched_tokens": -1}, "max_batched_tokens must be over 0, got -1"),
        ({"kv_tokens": 0}, "kv_tokens must be over 0, got 0"),
        ({"step_s_per_sequence": -0.1}, "step_s_per_sequence must be at least 0, got -0.1"),
        ({"prefill_s_per_token": -0.1}, "prefill_s_per_token must be at least 0, got -0.1"),
        ({"startup_s": -1.0}, "startup_s must be at least 0, got -1.0"),
        ({"slots": 64, "max_batched_tokens": 32}, "max_batched_tokens 32 must be at least slots 64"),
    ],
    ids=["step", "nan", "slots", "tokens", "kv", "per-sequence", "prefill", "startup", "batch-over-step"],
)
def test_a_field_out_of_its_range_is_named(model: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(LatencyModel(), **model)  # type: ignore[arg-type]  # names from a table


def test_a_step_takes_longer_with_each_sequence() -> None:
    model = LatencyModel(step_s=0.5, step_s_per_sequence=0.25)
    assert [model.step_of(sequences) for sequences in (0, 1, 4)] == [0.5, 0.75, 1.5]


def test_presets_have_names_of_a_model_and_an_accelerator() -> None:
    assert sorted(PRESETS) == ["8b-h100", "8b-l40s"]
