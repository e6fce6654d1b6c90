"""The network: a small standard Llama, started with copying heads already in place.

Attention heads which find "what followed the last time I saw this" (induction heads)
take a network of this size many millions of tokens to discover.  They are known, so
the initial weights spell them out, and training only has to refine them.
"""

from __future__ import annotations

import math
import re

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from tokenizer import BOS, CONTEXT_LENGTH, EOS, PAD, SPECIAL

WIDTH, LAYERS, HEADS, HEAD_DIM, MLP_WIDTH = 256, 4, 4, 64, 384
ROPE_THETA = 1e6
SCALE = 0.0625  # standard deviation of the residual stream at the start
# Rotary pairs from this one on turn so slowly that a head can match content anywhere.
SLOW_PAIR = 14
MATCH_GAIN = 3.0
OFFSET_GAIN = 4.0
SLOT_GAIN = 2.5  # previous tokens must stand out from the token in whose place they are put
COPY_GAIN = 8.0


def new_config(tokenizer: Tokenizer) -> LlamaConfig:
    """Return the configuration of the network for this tokenizer."""
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=WIDTH,
        intermediate_size=MLP_WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=CONTEXT_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(PAD),
    )


def new_model(tokenizer: Tokenizer, generator: torch.Generator) -> LlamaForCausalLM:
    """Return a network with the informed initial weights."""
    model = LlamaForCausalLM(new_config(tokenizer))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                small = 0.5 * SCALE if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                weight.normal_(0, small / math.sqrt(weight.shape[1]), generator=generator)
        model.model.embed_tokens.weight.copy_(_embeddings(tokenizer, generator))
        _place_heads(model, generator)
    return model


def _embeddings(tokenizer: Tokenizer, generator: torch.Generator) -> Tensor:
    """Embeddings in which ' Return', 'return' and ' returns' start out alike.

    Each is the sum of a part for its stem, one for its own, one for a leading space, one
    for a capital, and one constant that lets a head attend by position alone.
    """

    def draw(rows: int) -> Tensor:
        return torch.randn(rows, WIDTH, generator=generator)

    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    flags = draw(3)
    stems: dict[str, Tensor] = {}
    rows = []
    for token, _ in vocabulary:
        word = token.lstrip("Ġ")
        stem = token if token in SPECIAL else re.sub(r"(?<=..)(es|s|ing|ed|e)$", "", word.lower())
        shared = stems.setdefault(stem, draw(1)[0])
        row = 0.75 * shared + 0.5 * draw(1)[0]
        row = row + 0.3 * (token != word) * flags[1] + 0.3 * word[:1].isupper() * flags[2]
        rows.append(row)
    # The constant part must be the same for all, or it would not be usable as a clock.
    table, constant = torch.stack(rows), flags[0] / flags[0].norm()
    table = table - (table @ constant)[:, None] * constant
    table = table / table.norm(dim=1, keepdim=True)
    return SCALE * math.sqrt(WIDTH) * (0.95 * table + 0.3 * constant)


def _constant_direction(table: Tensor) -> Tensor:
    """The unit vector on which all embeddings have the same component."""
    direction = torch.linalg.lstsq(table, torch.ones(len(table), 1)).solution[:, 0]
    return direction / direction.norm()


def _orthonormal(rows: int, generator: torch.Generator) -> Tensor:
    matrix = torch.randn(WIDTH, WIDTH, generator=generator)
    return torch.linalg.qr(matrix).Q[:rows]


def _place_heads(model: LlamaForCausalLM, generator: torch.Generator) -> None:
    """Write previous-token heads into layer 0, matching and copying heads above it."""
    # A quarter of the dimensions sums up a token; the others hold its three predecessors.
    seen, *slots = _orthonormal(WIDTH, generator).view(HEADS, HEAD_DIM, WIDTH)
    constant = _constant_direction(model.model.embed_tokens.weight)
    for head in range(3):
        _offset_head(model, head, head + 1, constant, seen, slots[head])
    values = _orthonormal(WIDTH, generator).view(HEADS, HEAD_DIM, WIDTH)
    for head in range(HEADS):
        # Query: the tokens at i and i-1.  Key: the tokens at j-1 and j-2.
        query = torch.cat([SLOT_GAIN * seen[:20], 0.7 * slots[0][20:40]])
        key = torch.cat([slots[0][:20], 0.7 * slots[1][20:40]])
        _match_head(model, LAYERS - 1, head, query, key, values[head], COPY_GAIN)
    # Layer 1: the same word elsewhere, and the same word one step later.
    _match_head(model, 1, 0, seen[:40], seen[:40], values[2], 0.5)
    _match_head(model, 1, 1, seen[:40], slots[0][:40], values[3], 0.5)


def _rows(head: int) -> slice:
    return slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)


def _offset_head(
    model: LlamaForCausalLM, head: int, offset: int, constant: Tensor, seen: Tensor, slot: Tensor
) -> None:
    """Make ``head`` of layer 0 read the token ``offset`` places back into ``slot``."""
    attention = model.model.layers[0].self_attn
    half = HEAD_DIM // 2
    query, key = torch.zeros(HEAD_DIM, WIDTH), torch.zeros(HEAD_DIM, WIDTH)
    for pair in range(8):
        angle = offset * ROPE_THETA ** (-pair / half)
        # Turned forward by the offset, the key lines up with queries that far ahead.
        query[pair] = OFFSET_GAIN * constant
        key[pair] = OFFSET_GAIN * math.cos(angle) * constant
        key[pair + half] = OFFSET_GAIN * math.sin(angle) * constant
    attention.q_proj.weight[_rows(head)] = query
    attention.k_proj.weight[_rows(head)] = key
    attention.v_proj.weight[_rows(head)] = seen
    attention.o_proj.weight[:, _rows(head)] = SLOT_GAIN * SCALE * slot.T


def _match_head(
    model: LlamaForCausalLM,
    layer: int,
    head: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gain: float,
) -> None:
    """Make a head attend where ``key`` equals ``query`` and pass on ``value``."""
    attention = model.model.layers[layer].self_attn
    half = HEAD_DIM // 2
    slow = list(range(SLOW_PAIR, half)) + list(range(half + SLOW_PAIR, HEAD_DIM))
    width = min(len(slow), len(query))
    for weight, rows in ((attention.q_proj.weight, query), (attention.k_proj.weight, key)):
        weight[_rows(head)] *= 0.1
        target = weight[_rows(head)]
        step = len(rows) / width
        for index in range(width):
            target[slow[index]] = MATCH_GAIN * rows[int(index * step)]
    attention.v_proj.weight[_rows(head)] = value
    attention.o_proj.weight[:, _rows(head)] = gain * SCALE * value.T


def save_model(model: LlamaForCausalLM, folder: str) -> None:
    """Save as bfloat16 with greedy generation defaults, leaving ``model`` unchanged."""
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16)
    copy.generation_config.do_sample = False
    copy.generation_config.max_new_tokens = 96
    copy.generation_config.eos_token_id = model.config.eos_token_id
    copy.generation_config.pad_token_id = model.config.pad_token_id
    copy.save_pretrained(folder)
