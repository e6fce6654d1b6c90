"""LatencyModel: how long an engine's steps take, and how much of it there is per replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_POSITIVE = ("step_s", "slots", "max_batched_tokens", "kv_tokens")
_NOT_NEGATIVE = ("step_s_per_sequence", "prefill_s_per_token", "startup_s")


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Latency of one replica. A step takes ``step_s`` plus its share of sequences and of prompt tokens.

    Raises ValueError that names the field which is out of its range.
    """

    step_s: float = 0.02  # seconds of a step, whatever it works on
    step_s_per_sequence: float = 0.00015  # seconds more per sequence that decodes in the step
    prefill_s_per_token: float = 0.0001  # seconds more per prompt token that is read in the step
    slots: int = 64  # sequences that run at a time (vLLM: max_num_seqs)
    max_batched_tokens: int = 2048  # tokens of one step, decoded and prompt ones together
    kv_tokens: int | None = None  # tokens that the KV cache holds; None: no limit
    startup_s: float = 90.0  # seconds from asking for a replica until it serves

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} must be over 0, got {value}")
        for name in _NOT_NEGATIVE:
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        if self.max_batched_tokens < self.slots:  # vLLM refuses it too: a full batch must fit into one step
            raise ValueError(f"max_batched_tokens {self.max_batched_tokens} must be at least slots {self.slots}")

    def step_of(self, sequences: int) -> float:
        """Return the seconds of a step that only decodes, with that many sequences."""
        return self.step_s + self.step_s_per_sequence * sequences


# Plausible orders of magnitude to study policies with, not measurements; calibrate before you plan capacity with them.
PRESETS: Mapping[str, LatencyModel] = MappingProxyType(
    {
        "8b-l40s": LatencyModel(),
        "8b-h100": LatencyModel(
            step_s=0.008, step_s_per_sequence=0.00004, prefill_s_per_token=0.00003, slots=128, max_batched_tokens=8192
        ),
    }
)
