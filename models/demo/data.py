"""Turn passages into prompts as the product makes them, and prompts into training batches."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from math import log
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.demo.corpus import Passage
from models.demo.questions import Question, ask, content_stems
from models.demo.tokenizer import ASSISTANT, BOS, EOS, USER
from serve_app.prompts import Passage as Hit
from serve_app.prompts import compile_prompt, render_prompt

# The template that the RAG pipeline renders; it must end with the question.
PROMPT = Path(__file__).resolve().parents[2] / "prompts" / "demo.j2"
RANK_WEIGHTS = (80, 12, 8)  # how often the relevant passage is first, second and third, in percent
NEIGHBOURS = 12  # distractors come from this many nearest passages
POOL = 64  # samples sorted by length at a time, so that little is padded
IGNORED = -100


@dataclass(frozen=True)
class Sample:
    """A question with its passages in retrieval order; ``rank`` counts from 1."""

    passages: tuple[Passage, ...]
    question: Question
    rank: int

    @property
    def answer(self) -> str:
        """The wanted reply: the relevant passage's number and the sentence, word for word."""
        return f"[{self.rank}] {self.question.answer}"


class Neighbours:
    """Finds passages that share telling words with a question, rare words counting more."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._places: dict[str, list[int]] = defaultdict(list)
        for index, passage in enumerate(passages):
            for stem in content_stems(f"{passage.title} {passage.text}"):
                self._places[stem].append(index)

    def of(self, question: str, passage: Passage) -> list[Passage]:
        """Return the passages nearest to the question, other than those of the answered one's title."""
        scores: dict[int, float] = defaultdict(float)
        for stem in sorted(content_stems(question)):
            places = self._places.get(stem, [])
            for index in places:
                scores[index] += log(len(self._passages) / len(places))
        near = (self._passages[index] for index in nlargest(3 * NEIGHBOURS, scores, key=scores.__getitem__))
        return [p for p in near if p.title != passage.title][:NEIGHBOURS]


class Sampler:
    """Draws samples, reproducibly; ``others`` are where distractors come from."""

    def __init__(self, passages: Sequence[Passage], others: Sequence[Passage], seed: int) -> None:
        self._passages = passages
        self._neighbours = Neighbours(others)
        self._documents: dict[str, list[Passage]] = defaultdict(list)
        for passage in others:
            self._documents[passage.document].append(passage)
        self._rng = random.Random(seed)  # noqa: S311 - draws training data

    def draw(self) -> Sample:
        """Return a question with three passages of which one answers it."""
        while True:
            passage = self._rng.choice(self._passages)
            question = ask(passage, self._rng)
            if question and (distractors := self._distractors(passage, question)):
                break
        rank = self._rng.choices((1, 2, 3), RANK_WEIGHTS)[0]
        distractors.insert(rank - 1, passage)
        return Sample(tuple(distractors), question, rank)

    def _distractors(self, passage: Passage, question: Question) -> list[Passage]:
        """Return two passages, each a neighbour of the question or of the same document."""
        near = self._neighbours.of(question.text, passage)
        same = self._documents[passage.document]
        pool = near + self._rng.sample(same, min(len(same), NEIGHBOURS // 2))
        fit = {p.title: p for p in pool if p.title != passage.title and not _answers(p, question)}
        return self._rng.sample(list(fit.values()), 2) if len(fit) > 1 else []

    def shuffle(self, values: list[list[Encoded]]) -> None:
        """Shuffle in place."""
        self._rng.shuffle(values)


def _answers(passage: Passage, question: Question) -> bool:
    return question.answer in passage.text or (bool(question.name) and passage.answers_to(question.name))


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt, then of its answer."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Batch:
    """Model inputs, and the answer tokens to predict at each place (IGNORED elsewhere)."""

    input_ids: Tensor
    targets: Tensor


class Encoder:
    """Encodes samples exactly as prompt template and chat template lay them out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._template = compile_prompt(PROMPT.read_text(encoding="utf-8"))

    def message(self, passages: Sequence[Passage], question: str) -> str:
        """Render the user message that production would send."""
        hits = [Hit(n, p.title, p.text) for n, p in enumerate(passages, 1)]
        return render_prompt(self._template, question, hits)

    def encode(self, sample: Sample) -> Encoded:
        """Return the ids of the prompt and of the wanted answer."""
        prompt = BOS + USER + self.message(sample.passages, sample.question.text) + ASSISTANT
        return Encoded(self._ids(prompt), self._ids(sample.answer + EOS))

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def collate(encoded: Sequence[Encoded]) -> Batch:
    """Pad samples at the end, where no answer can see it."""
    length = max(map(len, encoded))
    input_ids = torch.zeros(len(encoded), length, dtype=torch.long)
    targets = torch.full_like(input_ids, IGNORED)
    for row, sample in enumerate(encoded):
        input_ids[row, : len(sample)] = torch.tensor(sample.prompt + sample.answer)
        start = len(sample.prompt) - 1
        targets[row, start : start + len(sample.answer)] = torch.tensor(sample.answer)
    return Batch(input_ids, targets)


def batches(sampler: Sampler, encoder: Encoder, tokens: int) -> Iterator[Batch]:
    """Yield batches of about ``tokens`` tokens from one pool of samples."""
    pool = sorted((encoder.encode(sampler.draw()) for _ in range(POOL)), key=len)
    groups: list[list[Encoded]] = [[]]
    for sample in pool:
        if groups[-1] and (len(groups[-1]) + 1) * len(sample) > tokens:
            groups.append([])
        groups[-1].append(sample)
    sampler.shuffle(groups)
    yield from map(collate, groups)
