"""Train Manta's demo language model on the passages that `manta run --demo` ingests.

python -m models.demo.train --seed 0 --minutes 6 --out models/demo/model
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from models.demo.architecture import freeze_placed_heads, new_model, save_model
from models.demo.corpus import load_corpus
from models.demo.data import IGNORED, Batch, Encoded, Encoder, Sample, Sampler, batches, collate
from models.demo.questions import ALL_FORMS
from models.demo.tokenizer import save_tokenizer, train_tokenizer

log = logging.getLogger(__name__)

WARMUP_STEPS = 10
VALIDATION_SAMPLES = 100
VALIDATION_SEED = 99
VALIDATION_SHARE = 0.5  # of the training time, between two validations


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=6, help="wall-clock time; 0 keeps the initial weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=2400)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    return parser.parse_args()


def training_batches(sampler: Sampler, encoder: Encoder, *, tokens: int, seconds: float) -> Iterator[tuple[float, Batch]]:
    """Yield batches, with the share of the time that has gone, until it is up."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        for batch in batches(sampler, encoder, tokens):
            share = (time.monotonic() - start) / seconds
            if share >= 1:
                return
            yield share, batch


def learning_rate(peak: float, step: int, share: float) -> float:
    """Warm up, then fall to nearly nothing along a cosine."""
    fall = 0.02 + 0.98 * math.cos(share * math.pi / 2) ** 2
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * fall


def train_step(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, batch: Batch) -> tuple[float, float]:
    """Take one step; return loss and token accuracy."""
    hidden = model.model(input_ids=batch.input_ids).last_hidden_state
    wanted = batch.targets != IGNORED
    logits = model.lm_head(hidden[wanted])
    targets = batch.targets[wanted]
    loss = cross_entropy(logits, targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item(), (logits.argmax(-1) == targets).float().mean().item()


def is_exact(model: LlamaForCausalLM, encoded: Encoded) -> bool:
    """Whether greedy decoding gives the answer: every token, the end included, is the likeliest after the right ones."""
    batch = collate([encoded])
    wanted = batch.targets != IGNORED
    with torch.no_grad():
        hidden = model.model(input_ids=batch.input_ids).last_hidden_state[wanted]
        return bool((model.lm_head(hidden).argmax(-1) == batch.targets[wanted]).all())


def publish(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Replace the files in ``out`` one by one, each in a single step."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        save_tokenizer(tokenizer, Path(scratch))
        save_model(model, scratch)
        for file in Path(scratch).iterdir():
            file.chmod(0o644)
            os.replace(file, out / file.name)


class Keeper:
    """Keeps the checkpoint that does best on validation samples."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: Tokenizer, samples: Sequence[Sample], *, out: Path) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        self._samples = samples
        self._out = out
        self._best = -1.0

    def check(self) -> None:
        """Publish the model as it is now, when it was never better."""
        exact = sum(is_exact(self._model, self._encoder.encode(sample)) for sample in self._samples)
        score = exact / len(self._samples)
        log.info("validation: exact match %.3f", score)
        if score > self._best:
            self._best = score
            publish(self._model, self._tokenizer, self._out)


def train(options: argparse.Namespace) -> None:
    """Run the whole training; the best checkpoint stays in ``options.out``."""
    passages = [p for p in load_corpus() if not p.held_out]
    tokenizer = train_tokenizer((text for p in passages for text in (p.title, p.text)), ALL_FORMS)
    model = new_model(tokenizer, torch.Generator().manual_seed(options.seed))
    validation = Sampler(passages, passages, VALIDATION_SEED)
    keeper = Keeper(model, tokenizer, [validation.draw() for _ in range(VALIDATION_SAMPLES)], out=options.out)
    keeper.check()
    freeze_placed_heads(model)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)
    sampler = Sampler(passages, passages, options.seed)
    due, tokens = VALIDATION_SHARE, 0
    stream = training_batches(sampler, Encoder(tokenizer), tokens=options.batch_tokens, seconds=options.minutes * 60)
    for step, (share, batch) in enumerate(stream):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(options.learning_rate, step, share)
        loss, accuracy = train_step(model, optimizer, batch)
        tokens += batch.input_ids.numel()
        log.info("%.3f step %d tokens %d loss %.3f accuracy %.3f", share, step, tokens, loss, accuracy)
        if share >= due:
            due += VALIDATION_SHARE
            keeper.check()
    keeper.check()


def main() -> None:
    """Train with the options of the command line."""
    options = parse_options()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    train(options)


if __name__ == "__main__":
    main()
