"""LoRA adapters of the demo model, as PEFT saves them, with random weights: what they answer is nonsense, each its own."""

from __future__ import annotations

import json
from pathlib import Path

RANK = 8
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
SCALE = 1.0  # beside what is there; small changes would leave the likeliest tokens as they are


def write_adapter(folder: Path, model_folder: Path, seed: int, *, rank: int = RANK) -> Path:
    """Write an adapter of a Llama model into a new folder, and return that."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    width, heads = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module in MODULES:
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            inner, outer = (heads, width) if module == "o_proj" else (width, heads)
            tensors[f"{name}.lora_A.weight"] = torch.randn(rank, inner, generator=random) / inner**0.5
            tensors[f"{name}.lora_B.weight"] = torch.randn(outer, rank, generator=random) * SCALE / rank**0.5
    folder.mkdir(parents=True)
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    description = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(model_folder),
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(MODULES),
    }
    (folder / "adapter_config.json").write_text(json.dumps(description), encoding="utf-8")
    return folder
