"""Train Manta's demo language model on the documentation of the running Python.

    python models/demo/train.py --seed 0 --minutes 50 --out models/demo/model
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from architecture import freeze_placed_heads, new_model, save_model
from corpus import Document, load_corpus
from data import LEVELS, Batch, Encoder, Sample, Sampler, batches
from evaluate import held_out_samples, quick_exact_match
from tokenizer import save_tokenizer, train_tokenizer

# Share of the training time after which each level of the curriculum begins.
LEVEL_STARTS = (0.0, 0.1, 0.3)
WARMUP_STEPS = 40
WRITER_SCALE = 0.1
EVALUATION_SHARE = 0.25  # of the training time, between two evaluations
EVALUATION_SAMPLES = 64


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=2000)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    return parser.parse_args()


def make_tokenizer(documents: list[Document]) -> Tokenizer:
    """Train the tokenizer on all headings and paragraphs."""
    texts = (text for d in documents for e in d.entries for text in (e.heading, *e.paragraphs))
    return train_tokenizer(texts)


def training_batches(
    sampler: Sampler, encoder: Encoder, tokens: int, seconds: float
) -> Iterator[tuple[float, Batch]]:
    """Yield batches, with the share of the time that has gone, until it is up."""
    start = time.monotonic()
    while True:
        share = (time.monotonic() - start) / seconds
        level = sum(share >= begin for begin in LEVEL_STARTS) - 1
        # A few easier samples stay in, and a few harder ones come early.
        level = min(len(LEVELS) - 1, max(0, level + sampler.rng.choice([-1, 0, 0, 0, 0, 0, 1])))
        for batch in batches(sampler, encoder, LEVELS[level], tokens):
            share = (time.monotonic() - start) / seconds
            if share >= 1:
                return
            yield share, batch


def learning_rate(peak: float, step: int, share: float) -> float:
    """Warm up, then fall to nearly nothing along a cosine."""
    fall = 0.02 + 0.98 * math.cos(share * math.pi / 2) ** 2
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * fall


def new_optimizer(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """Return AdamW with smaller steps for all that writes into the residual stream.

    The stream starts out small, so that steps of the usual size would drown it.
    """
    writers, others = [], []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            (writers if writes else others).append(weight)
    groups = [{"params": writers, "scale": WRITER_SCALE}, {"params": others, "scale": 1.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def train_step(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, batch: Batch
) -> tuple[float, float, float]:
    """Take one step; return loss, token accuracy and that of the answers' first tokens."""
    hidden = model.model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.attention_mask,
    ).last_hidden_state
    logits = model.lm_head(hidden[batch.rows, batch.columns])
    loss = cross_entropy(logits, batch.targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    right = (logits.argmax(-1) == batch.targets).float()
    first = right[batch.turns.diff(prepend=torch.tensor([-1])) > 0]
    return loss.item(), right.mean().item(), first.mean().item()


def publish(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Replace the files in ``out`` one by one, each in a single step."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        save_tokenizer(tokenizer, Path(scratch))
        save_model(model, scratch)
        for file in Path(scratch).iterdir():
            file.chmod(0o644)
            os.replace(file, out / file.name)


def train(options: argparse.Namespace) -> None:
    """Run the whole training and keep the best checkpoint in ``options.out``."""
    documents = [d for d in load_corpus() if not d.held_out]
    tokenizer = make_tokenizer(documents)
    model = new_model(tokenizer, torch.Generator().manual_seed(options.seed))
    publish(model, tokenizer, options.out)
    encoder = Encoder(tokenizer)
    samples = held_out_samples(EVALUATION_SAMPLES)
    freeze_placed_heads(model)
    optimizer = new_optimizer(model)
    sampler = Sampler(documents, options.seed)
    seconds, best, due, tokens = options.minutes * 60, -1.0, EVALUATION_SHARE, 0
    stream = training_batches(sampler, encoder, options.batch_tokens, seconds)
    for step, (share, batch) in enumerate(stream):
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * learning_rate(options.learning_rate, step, share)
        loss, accuracy, first = train_step(model, optimizer, batch)
        tokens += batch.input_ids.numel()
        if step % 20 == 0:
            report = f"loss {loss:.3f} accuracy {accuracy:.3f} first {first:.3f}"
            print(f"{share:.3f} step {step} tokens {tokens} {report}", flush=True)
        if share >= due:
            due = share + EVALUATION_SHARE
            best = keep_best(model, tokenizer, encoder, samples, best, options.out)
    keep_best(model, tokenizer, encoder, samples, best, options.out)


def keep_best(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    encoder: Encoder,
    samples: list[Sample],
    best: float,
    out: Path,
) -> float:
    """Evaluate; publish the model when no earlier one was better."""
    scores = quick_exact_match(model, encoder, samples)
    print("held out:", {kind: round(score, 3) for kind, score in scores.items()}, flush=True)
    if scores["all"] >= best:
        publish(model, tokenizer, out)
    return max(best, scores["all"])


def main() -> None:
    """Train with the options of the command line."""
    options = parse_options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    train(options)


if __name__ == "__main__":
    main()
