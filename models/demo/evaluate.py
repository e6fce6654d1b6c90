"""Measure how often the model answers held-out questions word for word, beside a trivial baseline.

python -m models.demo.evaluate --count 200
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.demo.corpus import load_corpus
from models.demo.data import Encoder, Sample, Sampler
from models.demo.train import is_exact

EVALUATION_SEED = 12345
NUMBER = re.compile(r"^\[\d\] ")
MOST_NEW_TOKENS = 160
Answer = Callable[[Sample], str]


def held_out_samples(count: int) -> list[Sample]:
    """Return questions on documents never trained on; their distractors may come from any document."""
    passages = load_corpus()
    sampler = Sampler([p for p in passages if p.held_out], passages, EVALUATION_SEED)
    return [sampler.draw() for _ in range(count)]


def first_sentence(sample: Sample) -> str:
    """Return what takes no model at all: the first sentence of the first passage."""
    return f"[1] {sample.passages[0].sentences[0]}"


def load_answer(folder: Path) -> Answer:
    """Return the model of a folder as a function; the weights are the saved ones, the arithmetic is in 32 bits."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = Encoder(tokenizer.backend_tokenizer)

    def answer(sample: Sample) -> str:
        if is_exact(model, encoder.encode(sample)):
            return sample.answer
        prompt = torch.tensor([encoder.encode(sample).prompt])
        output = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=MOST_NEW_TOKENS)
        return str(tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True))

    return answer


def token_f1(wanted: str, got: str) -> float:
    """Return the F1 overlap of whitespace-separated words."""
    left, right = wanted.split(), got.split()
    common = sum((Counter(left) & Counter(right)).values())
    return 2 * common / (len(left) + len(right)) if common else 0.0


def scores_of(sample: Sample, got: str) -> tuple[float, float, float]:
    """Return whether all is right, whether the sentence is, and the sentence's F1."""
    sentence = NUMBER.sub("", got)
    wanted = sample.question.answer
    return float(got == sample.answer), float(sentence == wanted), token_f1(wanted, sentence)


def table(samples: list[Sample], answer: Answer) -> str:
    """Return means over all questions, by kind and by the rank of the relevant passage."""
    groups: dict[str, list[tuple[float, float, float]]] = {}
    for sample in samples:
        scores = scores_of(sample, answer(sample))
        for key in ("all", f"kind {sample.question.kind}", f"rank {sample.rank}"):
            groups.setdefault(key, []).append(scores)
    lines = []
    for key, rows in sorted(groups.items()):
        exact, sentence, f1 = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        lines.append(f"{key:16} n={len(rows):4} exact={exact:.3f} sentence={sentence:.3f} f1={f1:.3f}")
    return "\n".join(lines)


def main() -> None:
    """Evaluate the model of a folder and the baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    samples = held_out_samples(options.count)
    for name, answer in (("first sentence of passage 1", first_sentence), ("model", load_answer(options.model))):
        sys.stdout.write(f"{name}\n{table(samples, answer)}\n")


if __name__ == "__main__":
    main()
