"""Adapter files: what a LoRA adapter's folder must hold before an engine gets it."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

logger = logging.getLogger("ray.serve")

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")  # what engines look for, in this order
MOST_CONFIG_BYTES = 1 << 20


class UnfitAdapter(ValueError):
    """An adapter that this engine cannot run. The text is for the log: it may name paths."""


class Folder(Protocol):
    """A folder that stays while it is needed."""

    @property
    def path(self) -> str:
        """Where it is."""
        ...

    def close(self) -> None:
        """Let it be removed when its room is needed."""
        ...


@dataclass(frozen=True, slots=True)
class Label:
    """The source of a simulated adapter, which opens no files."""

    path: str

    def close(self) -> None:
        """Hold nothing, free nothing."""


def fetch(source: str) -> Folder:
    """Return an adapter's folder; may download for minutes. Raises MissingWeights."""
    from deployments.llm.sources import adapter_folder

    return adapter_folder(source)


def check_files(folder: str, max_rank: int) -> str:
    """Return a digest of an adapter's files, which changes when they do.

    Raises:
        UnfitAdapter: it is none that vLLM can load, or a rank is over the engine's ``lora.max_rank``.
    """
    root = Path(folder)
    config = _config(root)
    _check_ranks(config, max_rank, folder)
    weights = next((root / name for name in WEIGHTS if (root / name).is_file()), None)
    if weights is None:
        raise UnfitAdapter(f"{folder} has no weights; one of {', '.join(WEIGHTS)} must stand beside {CONFIG}")
    logger.info(
        "adapter in %s: rank %d, made for %s", folder, config["r"], config.get("base_model_name_or_path") or "a model unnamed"
    )
    # Not of the bytes, of which there may be gigabytes: whoever writes a file changes its size or its time.
    stats = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in (root / CONFIG, weights)]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:12]


def _check_ranks(config: dict[str, Any], max_rank: int, folder: str) -> None:
    """Raise UnfitAdapter unless ``r``, and the ranks of modules that have their own, are ranks within the engine's."""
    if not _is_rank(rank := config.get("r")):
        raise UnfitAdapter(f"{CONFIG} in {folder}: `r` must be the adapter's rank, got {rank!r}")
    pattern = config.get("rank_pattern") or {}
    if not isinstance(pattern, dict):
        raise UnfitAdapter(f"{CONFIG} in {folder}: `rank_pattern` must be ranks by module, got {pattern!r}")
    ranks: dict[str, Any] = {"": rank} | {f" of `{module}` in `rank_pattern`": each for module, each in pattern.items()}
    for where, each in ranks.items():
        if not _is_rank(each):
            raise UnfitAdapter(f"{CONFIG} in {folder}: the rank{where} must be 1 or more, got {each!r}")
    where, most = max(ranks.items(), key=lambda item: item[1])
    if most > max_rank:
        told = f"rank {most}{where} is over the engine's {max_rank}; raise `engine.lora.max_rank`"
        raise UnfitAdapter(f"{CONFIG} in {folder}: {told}")


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _config(root: Path) -> dict[str, Any]:
    try:
        with (root / CONFIG).open("rb") as file:
            config = json.loads(file.read(MOST_CONFIG_BYTES))
    except (OSError, ValueError) as err:
        raise UnfitAdapter(f"{CONFIG} in {root} cannot be read: {err}") from err
    if not isinstance(config, dict) or config.get("peft_type", "LORA") != "LORA":
        raise UnfitAdapter(f"{CONFIG} in {root} describes no LoRA adapter (`peft_type: LORA`)")
    return config
