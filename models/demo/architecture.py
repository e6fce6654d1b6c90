"""The network: a small standard Llama, started with copying heads already in place.

Attention heads which find "what followed the last time I saw this" (induction heads)
take a network of this size many millions of tokens to discover.  They are known, so
the initial weights spell them out, and training only has to refine them.
"""

from __future__ import annotations

import math

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from models.demo.slots import WIDTH, flag, rows, set_embeddings
from models.demo.tokenizer import BOS, CONTEXT_LENGTH, EOS, PAD

LAYERS, HEADS, HEAD_DIM, MLP_WIDTH = 3, 6, 64, 192
HALF = HEAD_DIM // 2
ROPE_THETA = 1e12
TYPICAL_NORM = 5.2  # of the residual stream
FAST_PAIRS = range(5)  # rotary pairs that tell neighbouring places apart
RECENCY_PAIR = 8  # falls off steadily over the whole context
FIRST_SLOW_PAIR = 9  # from here on rotation is too slow to matter: heads can match content
SLOW = [*range(FIRST_SLOW_PAIR, HALF), *range(HALF + FIRST_SLOW_PAIR, HEAD_DIM)]
LOGIT_SCALE = 40.0
N_GRAM = (1.0, 1.0, 0.9)  # weight of the last, the second last and the third last token in a match
VOTE_GAINS = (0.19, 0.08)  # of words found in a title and in a text


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
        tie_word_embeddings=False,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(PAD),
    )


def new_model(tokenizer: Tokenizer, generator: torch.Generator) -> LlamaForCausalLM:
    """Return a network with the informed initial weights."""
    model = LlamaForCausalLM(new_config(tokenizer))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("gate_proj.weight", "up_proj.weight")):
                weight.normal_(0, 0.02, generator=generator)
            elif weight.dim() == 2:
                weight.zero_()
            else:
                weight.fill_(TYPICAL_NORM / math.sqrt(WIDTH))
        set_embeddings(model.model.embed_tokens.weight, model.lm_head.weight, tokenizer, generator=generator)
        model.lm_head.weight.mul_(LOGIT_SCALE)
        shorten = _orthonormal(40, 80, generator) * math.sqrt(2) @ rows("token")
        _place_looking_back(model, shorten)
        _place_copying(model, shorten, generator)
        _place_stop(model)
        _place_choice(model, shorten, generator)
    return model


class Head:
    """One attention head, to be filled in."""

    def __init__(self, model: LlamaForCausalLM, layer: int, head: int) -> None:
        attention = model.model.layers[layer].self_attn
        own = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        self.query = attention.q_proj.weight[own]
        self.key = attention.k_proj.weight[own]
        self.value = attention.v_proj.weight[own]
        self.output = attention.o_proj.weight[:, own]
        self.free = list(SLOW)
        self.carried = 0

    def window(self, offset: int, gain: float) -> None:
        """Attend ``offset`` places back."""
        size = math.sqrt(math.sqrt(HEAD_DIM) * gain)
        for pair in FAST_PAIRS:
            angle = offset * ROPE_THETA ** (-pair / HALF)
            # Turned forward by the offset, the key lines up with queries that far ahead.
            self.query[pair] = size * flag("constant")
            self.key[pair] = size * math.cos(angle) * flag("constant")
            self.key[pair + HALF] = size * math.sin(angle) * flag("constant")

    def recent(self, loss_per_token: float) -> None:
        """Prefer recent places (or distant ones), evenly over some 1500 tokens."""
        gain = abs(loss_per_token) * ROPE_THETA ** (RECENCY_PAIR / HALF)
        size = math.sqrt(math.sqrt(HEAD_DIM) * gain)
        self.query[RECENCY_PAIR + HALF] = math.copysign(size, loss_per_token) * flag("constant")
        self.key[RECENCY_PAIR] = size * flag("constant")

    def match(self, query: Tensor, key: Tensor, gain: float) -> None:
        """Add ``gain`` times the dot product of two readings to what the head attends to."""
        size = math.sqrt(math.sqrt(HEAD_DIM) * gain)
        for one, other in zip(query.view(-1, WIDTH), key.view(-1, WIDTH), strict=True):
            place = self.free.pop()
            self.query[place] = size * one
            self.key[place] = size * other

    def carry(self, source: Tensor, target: Tensor, gain: float = 1.0) -> None:
        """Carry what the ``source`` directions hold over to the ``target`` directions."""
        end = self.carried + len(source)
        self.value[self.carried : end] = source
        self.output[:, self.carried : end] = gain * target.T
        self.carried = end


def _place_looking_back(model: LlamaForCausalLM, shorten: Tensor) -> None:
    """Layer 0: the last three tokens, and the latest mark."""
    for offset, slot in enumerate(("previous", "earlier", "earliest"), 1):
        head = Head(model, 0, offset - 1)
        head.window(offset, 30.0)
        head.carry(shorten, rows(slot))
        if offset == 1:
            head.carry(flag("text")[None], rows("after_mark"))
    latest = Head(model, 0, 3)
    latest.recent(0.2)
    latest.match(flag("constant"), flag("is_mark"), 110.0)
    latest.carry(rows("mark"), rows("passage"))
    kinds = torch.stack([flag(name) for name in ("source", "text", "question")])
    latest.carry(kinds, rows("region"))


def _orthonormal(height: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(width, height, generator=generator)).Q.T.contiguous()


def _place_copying(model: LlamaForCausalLM, shorten: Tensor, generator: torch.Generator) -> None:
    """Layer 1: find where the same tokens went before in the same passage, and copy what follows."""
    mixes = [_orthonormal(32, 40, generator) * math.sqrt(40 / 32) * weight for weight in N_GRAM]
    now = (shorten, rows("previous"), rows("earlier"), rows("earliest"))
    query = sum(mix @ reading for mix, reading in zip(mixes, now, strict=False))
    after = sum(mix @ reading for mix, reading in zip(mixes, now[1:], strict=True))
    later = sum(mix @ reading for mix, reading in zip(mixes, now[2:], strict=False))
    flags = torch.stack([flag(name) for name in ("line", "fresh")])
    token = rows("token")
    for number, key in enumerate((after, after, later)):
        head = Head(model, 1, number)
        head.match(query, key, 20.0)
        head.recent(-0.06)  # the first of several equal places
        head.match(rows("passage"), rows("passage"), 60.0)
        head.match(flag("constant"), rows("region")[1], 20.0)
        if number < 2:
            head.match(flag("text"), rows("after_mark"), 80.0)
        head.match(flag("answer"), flag("first"), 200.0)  # nothing is copied yet when the answer begins
        if number == 2:
            head.carry(flags, rows("later_flags")[:2])
        else:
            half = slice(40 * number, 40 * number + 40)
            head.carry(token[half], rows("next")[half])
    head = Head(model, 1, 0)
    head.carried = 40
    head.carry(flags, rows("next_flags")[:2])


def _place_stop(model: LlamaForCausalLM) -> None:
    """Layer 1: end the answer at the end of a sentence or paragraph."""
    mlp = model.model.layers[1].mlp
    line, fresh = rows("next_flags")[:2]
    for neuron, reading in enumerate((flag("end") + fresh, line + rows("later_flags")[0])):
        mlp.gate_proj.weight[neuron] = 20 * (reading - 1.5 * flag("constant"))
        mlp.up_proj.weight[neuron] = flag("constant")
        mlp.down_proj.weight[:, neuron] = 0.5 * rows("next")[-1]


def _place_choice(model: LlamaForCausalLM, shorten: Tensor, generator: torch.Generator) -> None:
    """Layers 1 and 2: the words of the question vote for the passages that they occur in."""
    # Of two tokens in a row in a title, which names are made of.
    pair = torch.cat([shorten, rows("previous")])
    mix = torch.cat([_orthonormal(36, 40, generator) * math.sqrt(40 / 36) for _ in range(2)], 1)
    head = Head(model, 1, 5)
    head.match(mix @ pair, mix @ pair, 20.0)
    head.match(flag("constant"), 10 * rows("region")[0] + 40 * flag("first"), 1.0)
    head.carry(rows("passage"), rows("title_votes"))
    votes = ("title_votes", "text_votes")
    for region, slot in enumerate(votes):
        head = Head(model, 1, 3 + region)
        head.match(rows("stem"), rows("stem"), 20.0)
        head.match(flag("constant"), 10 * rows("region")[region] + 23 * flag("first"), 1.0)
        head.carry(rows("passage"), rows(slot))
        head = Head(model, 2, region)
        head.match(flag("answer"), rows("region")[2] + flag("telling"), 20.0)
        head.match(flag("constant"), flag("first"), 14.0)
        head.carry(rows(slot), rows("next")[-10:-1], VOTE_GAINS[region])


def freeze_placed_heads(model: LlamaForCausalLM) -> None:
    """Train layers 1 and 2 only: the embeddings and the heads that look back are right as they are."""
    for part in (model.model.embed_tokens, model.lm_head, model.model.layers[0], model.model.norm):
        part.requires_grad_(False)


def save_model(model: LlamaForCausalLM, folder: str) -> None:
    """Save as bfloat16 with greedy generation defaults, leaving ``model`` unchanged."""
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16)
    copy.generation_config.do_sample = False
    copy.generation_config.temperature = 0.0  # what vLLM goes by
    copy.generation_config.max_new_tokens = 128
    copy.generation_config.eos_token_id = model.config.eos_token_id
    copy.generation_config.pad_token_id = model.config.pad_token_id
    copy.save_pretrained(folder)
