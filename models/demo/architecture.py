"""The network: a small standard Llama, started with copying heads already in place.

Attention heads which find "what followed the last time I saw this" (induction heads)
take a network of this size many millions of tokens to discover.  They are known, so
the initial weights spell them out, and training only has to refine them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from questions import STOP_WORDS
from tokenizer import ASSISTANT, BOS, CONTEXT_LENGTH, EOS, PAD, SPECIAL

WIDTH, LAYERS, HEADS, HEAD_DIM, MLP_WIDTH = 256, 4, 4, 64, 384
ROPE_THETA = 1e6
SCALE = 0.0625  # standard deviation of the embeddings at the start
# Rotary pairs from this one on turn so slowly that a head can match content anywhere.
SLOW_PAIR = 14
MATCH_GAIN = 3.0
OFFSET_GAIN = 4.0
SLOT_GAIN = 2.5  # previous tokens must stand out from the token in whose place they are put
COPY_GAIN = 8.0
BAG_GAIN = 8.0
BAG_PAIRS = range(5, 13)  # together they fade over about fifteen tokens
LOGIT_GAIN = 2.0
CONSTANT = 0.3  # share of every embedding that is the same for all
# Words that say nothing of what a question is about.
PLAIN_WORDS = STOP_WORDS | set(
    "function class method describe explain documentation tell about work happens call mean "
    "purpose said say question module return returns object".split()
)


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
        basis = Basis.draw(generator)
        model.model.embed_tokens.weight.copy_(_embeddings(tokenizer, basis, generator))
        model.model.norm.weight.fill_(LOGIT_GAIN)
        _place_copying_heads(model, basis)
        _place_locating_heads(model, basis, tokenizer)
    return model


@dataclass(frozen=True)
class Basis:
    """Orthonormal directions of the residual stream, by what they hold at the start."""

    seen: Tensor  # the token itself
    previous: Tensor  # the token before it
    earlier: Tensor  # the token two before it, and the first token of its sentence
    topic: Tensor  # the telling words up to it
    values: Tensor  # another basis in four parts, through which heads copy tokens

    @staticmethod
    def draw(generator: torch.Generator) -> Basis:
        """Draw the directions at random."""
        parts = _orthonormal(generator).view(4, HEAD_DIM, WIDTH)
        values = _orthonormal(generator).view(HEADS, HEAD_DIM, WIDTH)
        return Basis(parts[0], parts[1], parts[2], parts[3], values)

    @property
    def constant(self) -> Tensor:
        """The direction in which all embeddings are alike, to attend by position alone."""
        return self.seen[-1]

    @property
    def asking(self) -> Tensor:
        """The direction that marks what belongs to the question."""
        return self.seen[-2]

    @property
    def clean(self) -> Tensor:
        """The directions in which no token may differ from another."""
        return self.seen[-2:]

    @property
    def opening(self) -> Tensor:
        """The part of ``earlier`` that holds the first token of the sentence."""
        return torch.cat([self.earlier[:20], self.earlier[40:]])


def _orthonormal(generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q


def _embeddings(tokenizer: Tokenizer, basis: Basis, generator: torch.Generator) -> Tensor:
    """Embeddings in which ' Return', 'return' and ' returns' start out alike.

    Each is the sum of a part for its stem, one for its own, one for a leading space and
    one for a capital.  Plain words and punctuation have no part in the topic.
    """

    def draw() -> Tensor:
        return torch.randn(WIDTH, generator=generator)

    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    space, capital = draw(), draw()
    stems: dict[str, Tensor] = {}
    rows = []
    for token, _ in vocabulary:
        word = token.lstrip("Ġ")
        stem = token if token in SPECIAL else re.sub(r"(?<=..)(es|s|ing|ed|e)$", "", word.lower())
        if stem not in stems:
            stems[stem] = draw()
        row = 0.75 * stems[stem] + 0.5 * draw()
        row = row + 0.3 * (token != word) * space + 0.3 * word[:1].isupper() * capital
        row = row - basis.clean.T @ (basis.clean @ row)
        if not re.fullmatch("[A-Za-z]{2,}", word) or word.lower() in PLAIN_WORDS:
            row = row - basis.topic.T @ (basis.topic @ row)
        rows.append(row / row.norm())
    table = math.sqrt(1 - CONSTANT**2) * torch.stack(rows) + CONSTANT * basis.constant
    return SCALE * math.sqrt(WIDTH) * table


def _place_copying_heads(model: LlamaForCausalLM, basis: Basis) -> None:
    """Previous-token heads in the first layer, and in the last heads that copy on."""
    _window_head(model, 0, 0, OFFSET_GAIN, range(8), 1, basis)
    _move(model, 0, 0, basis.seen, basis.previous, SLOT_GAIN)
    _window_head(model, 0, 1, OFFSET_GAIN, range(8), 2, basis)
    _move(model, 0, 1, basis.seen[20:40], basis.earlier[20:40], SLOT_GAIN)
    # Query: the tokens at i and i-1.  Key: the tokens at j-1 and j-2.
    query = torch.cat([SLOT_GAIN * basis.seen[:20], 0.7 * basis.previous[20:40]])
    key = torch.cat([basis.previous[:20], 0.7 * basis.earlier[20:40]])
    for head in range(HEADS):
        _match_head(model, LAYERS - 1, head, MATCH_GAIN * query, MATCH_GAIN * key)
        _move(model, LAYERS - 1, head, basis.values[head], basis.values[head], COPY_GAIN)


def _place_locating_heads(model: LlamaForCausalLM, basis: Basis, tokenizer: Tokenizer) -> None:
    """Heads that find where the answer starts.

    Layer 0 gathers the telling words of the last few tokens, layer 1 remembers how the
    sentence began, and layer 2 looks, at the start of the answer, for the sentence whose
    heading (heads 0 and 1) or whose own words (heads 2 and 3) are those of the question.
    """

    def direction(tokens: str, part: Tensor) -> Tensor:
        ids = torch.tensor([tokenizer.token_to_id(t) for t in tokens.split()])
        seen = model.model.embed_tokens.weight[ids] @ basis.seen[:-1].T
        return (seen / seen.norm(dim=1, keepdim=True)).sum(0) @ part[:-1]

    _window_head(model, 0, 2, 0.5, BAG_PAIRS, 0, basis)
    _move(model, 0, 2, basis.topic, basis.topic, BAG_GAIN)
    starts = direction("Ċ .", basis.previous) - 2.5 * direction("Ċ # * [ `", basis.seen)
    _window_head(model, 1, 2, 1.0, BAG_PAIRS, 0, basis)
    _rule(model, 1, 2, HEAD_DIM - 1, 2.0 * basis.constant, 2.0 * starts)
    _move(model, 1, 2, basis.seen[:44], basis.opening, SLOT_GAIN)
    # Layer 1 also marks all that follows "Question", which is no place to find answers.
    answering, resting = direction(ASSISTANT, basis.seen), direction(BOS, basis.seen)
    question = direction(tokenizer.encode("Question").tokens[0], basis.seen)
    _window_head(model, 1, 3, 0.0, BAG_PAIRS, 0, basis)
    _rule(model, 1, 3, HEAD_DIM - 1, 4 * basis.constant, 6 * question + 2.5 * resting)
    _move(model, 1, 3, question[None], basis.asking[None], 3.0)
    for head in range(HEADS):
        half = basis.topic[:32] if head % 2 else basis.topic[32:]
        _match_head(model, 2, head, 2.6 * half, 2.6 * half)
        # Everywhere but at the start of the answer these heads rest on the first token.
        _rule(model, 2, head, HEAD_DIM - 1, 8 * basis.constant - 6 * answering, 8 * resting)
        wanted = (2.6 * starts if head < 2 else 0.0) - 20 * basis.asking
        _rule(model, 2, head, HEAD_DIM - 2, 1.6 * basis.constant, wanted)
        if head < 2:
            _move(model, 2, head, basis.values[head], basis.values[head], 2 * COPY_GAIN)
        else:
            _move(model, 2, head, basis.opening, basis.seen[:44], COPY_GAIN / 2)
    # Resting must leave no trace: the first token always looks the same, so blank it out.
    first = torch.tensor([[tokenizer.token_to_id(BOS)]])
    state = model.model(input_ids=first, output_hidden_states=True).hidden_states[2][0, 0]
    state = state / state.norm()
    values = model.model.layers[2].self_attn.v_proj.weight
    values -= torch.outer(values @ state, state)


def freeze_placed_heads(model: LlamaForCausalLM) -> None:
    """Keep training from unlearning what was placed, before it learns to make use of it.

    Frozen embeddings also keep rare tokens as easy to copy as common ones.
    """
    model.model.embed_tokens.weight.requires_grad_(False)
    model.model.layers[0].self_attn.requires_grad_(False)
    for layer in (1, 2):
        attention = model.model.layers[layer].self_attn
        attention.q_proj.requires_grad_(False)
        attention.k_proj.requires_grad_(False)


def _rows(head: int) -> slice:
    return slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)


def _window_head(
    model: LlamaForCausalLM,
    layer: int,
    head: int,
    gain: float,
    pairs: range,
    offset: int,
    basis: Basis,
) -> None:
    """Make a head attend around ``offset`` places back, whatever stands there."""
    half = HEAD_DIM // 2
    query, key = torch.zeros(HEAD_DIM, WIDTH), torch.zeros(HEAD_DIM, WIDTH)
    for pair in pairs:
        angle = offset * ROPE_THETA ** (-pair / half)
        # Turned forward by the offset, the key lines up with queries that far ahead.
        query[pair] = gain * basis.constant
        key[pair] = gain * math.cos(angle) * basis.constant
        key[pair + half] = gain * math.sin(angle) * basis.constant
    attention = model.model.layers[layer].self_attn
    attention.q_proj.weight[_rows(head)] = query
    attention.k_proj.weight[_rows(head)] = key


def _match_head(
    model: LlamaForCausalLM, layer: int, head: int, query: Tensor, key: Tensor
) -> None:
    """Make a head attend where ``key`` reads the same as ``query`` does here."""
    attention = model.model.layers[layer].self_attn
    half = HEAD_DIM // 2
    # The two slowest dimensions stay free for rules.
    slow = [*range(SLOW_PAIR, half), *range(half + SLOW_PAIR, HEAD_DIM - 2)]
    width = min(len(slow), len(query))
    for weight, rows in ((attention.q_proj.weight, query), (attention.k_proj.weight, key)):
        target = torch.zeros(HEAD_DIM, WIDTH)
        for index in range(width):
            target[slow[index]] = rows[index * len(rows) // width]
        weight[_rows(head)] = target


def _rule(
    model: LlamaForCausalLM, layer: int, head: int, row: int, query: Tensor, key: Tensor
) -> None:
    """Add a term to what a head attends to."""
    attention = model.model.layers[layer].self_attn
    attention.q_proj.weight[_rows(head)][row] = query
    attention.k_proj.weight[_rows(head)][row] = key


def _move(
    model: LlamaForCausalLM, layer: int, head: int, source: Tensor, target: Tensor, gain: float
) -> None:
    """Make a head carry what the ``source`` directions hold over to ``target``."""
    attention = model.model.layers[layer].self_attn
    values, outputs = torch.zeros(HEAD_DIM, WIDTH), torch.zeros(WIDTH, HEAD_DIM)
    values[: len(source)] = source
    outputs[:, : len(target)] = gain * SCALE * target.T
    attention.v_proj.weight[_rows(head)] = values
    attention.o_proj.weight[:, _rows(head)] = outputs


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
