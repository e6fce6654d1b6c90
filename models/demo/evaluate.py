"""Measure how often the model answers held-out questions word for word."""

from __future__ import annotations

import argparse
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from corpus import load_corpus
from data import LEVELS, Batch, Encoder, Sample, Sampler, answer_text, collate

EVALUATION_SEED = 12345
# Passages as in production: three or four, nothing invented and nothing renamed.
PRODUCTION = replace(LEVELS[-1], passages=(3, 4), invented=0.0, disguised=0.0)


def held_out_samples(count: int) -> list[Sample]:
    """Return samples with one question each, from documents never trained on."""
    documents = [d for d in load_corpus() if d.held_out]
    sampler = Sampler(documents, EVALUATION_SEED)
    rng = random.Random(EVALUATION_SEED)
    samples = [sampler.draw(PRODUCTION) for _ in range(count)]
    return [replace(s, questions=(rng.choice(s.questions),)) for s in samples]


def exact_turns(predicted: torch.Tensor, batch: Batch) -> list[bool]:
    """Tell for each answer whether every token, the end included, is right.

    When all are right given the right ones before, greedy decoding gives the same.
    """
    right = predicted == batch.targets
    return [bool(right[batch.turns == turn].all()) for turn in range(int(batch.turns.max()) + 1)]


def quick_exact_match(
    model: LlamaForCausalLM, encoder: Encoder, samples: list[Sample]
) -> dict[str, float]:
    """Return exact match by kind of question and over all, without generating."""
    hits: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for start in range(0, len(samples), 8):
        group = samples[start : start + 8]
        batch = collate([encoder.encode(s) for s in group])
        with torch.no_grad():
            hidden = model.model(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                attention_mask=batch.attention_mask.to(model.dtype),
            ).last_hidden_state
            predicted = model.lm_head(hidden[batch.rows, batch.columns]).argmax(-1)
        kinds = [q.kind for s in group for q in s.questions]
        for kind, exact in zip(kinds, exact_turns(predicted, batch), strict=True):
            for key in (kind, "all"):
                totals[key] += 1
                hits[key] += exact
    return {kind: hits[kind] / total for kind, total in sorted(totals.items())}


def token_f1(wanted: str, got: str) -> float:
    """Return the F1 overlap of whitespace-separated words."""
    left, right = wanted.split(), got.split()
    common = sum((Counter(left) & Counter(right)).values())
    return 2 * common / (len(left) + len(right)) if common else 0.0


def generate(model: LlamaForCausalLM, tokenizer: object, message: str) -> str:
    """Answer one rendered user message greedily, as a server would."""
    inputs = tokenizer.apply_chat_template(  # type: ignore[attr-defined]
        [{"role": "user", "content": message}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**inputs)  # type: ignore[operator]
    answer = output[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(answer, skip_special_tokens=True))  # type: ignore[attr-defined]


def evaluate_folder(folder: Path, count: int) -> None:
    """Print exact match and F1 of a saved model by greedy generation."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = Encoder(tokenizer.backend_tokenizer)
    scores: dict[str, list[tuple[bool, float]]] = {}
    for sample in held_out_samples(count):
        question = sample.questions[0]
        got = generate(model, tokenizer, encoder.user_message(sample, question.text))
        wanted = answer_text(question)
        score = (got == wanted, token_f1(wanted, got))
        for kind in (question.kind, "all"):
            scores.setdefault(kind, []).append(score)
    for kind, rows in sorted(scores.items()):
        exact, f1 = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        print(f"{kind:10} n={len(rows):4} exact={exact:.3f} f1={f1:.3f}")


def main() -> None:
    """Evaluate the model of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    evaluate_folder(options.model, options.count)


if __name__ == "__main__":
    main()
