"""Turn documents into training batches and evaluation samples."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import Template
from tokenizers import Tokenizer
from torch import Tensor

from corpus import Document
from passages import Passage, Style, disguise, invent_document, render
from questions import Question, ask
from tokenizer import ASSISTANT, BOS, EOS, USER

MASKED = -1e9
POOL = 48  # samples sorted by length at a time, so that little is padded
# The template that the RAG pipeline renders; it must end with the question.
PROMPT = Path(__file__).resolve().parents[2] / "prompts" / "demo.j2"


@dataclass(frozen=True)
class Level:
    """One stage of the curriculum."""

    passages: tuple[int, ...]
    characters: tuple[int, int]
    invented: float
    disguised: float
    questions: int


LEVELS = (
    Level((1, 2, 2), (60, 170), 0.5, 0.3, 4),
    Level((2, 3, 3), (90, 330), 0.3, 0.3, 5),
    Level((1, 2, 3, 3, 4, 4, 4, 5), (120, 560), 0.15, 0.25, 6),
)


@dataclass(frozen=True)
class Sample:
    """A context and questions about it."""

    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Hit:
    """What the prompt template sees of a passage."""

    number: int
    title: str
    text: str


@dataclass(frozen=True)
class Encoded:
    """Token ids of a shared context, then of every question with its answer."""

    context: list[int]
    turns: list[tuple[list[int], list[int]]]

    def __len__(self) -> int:
        return len(self.context) + sum(len(q) + len(a) for q, a in self.turns)


@dataclass(frozen=True)
class Batch:
    """Model inputs, and the places and ids of the answer tokens."""

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor
    turns: Tensor


class Sampler:
    """Draws samples from documents, reproducibly."""

    def __init__(self, documents: list[Document], seed: int) -> None:
        self.documents = documents
        self.rng = random.Random(seed)
        text = " ".join(p for d in documents for e in d.entries for p in e.paragraphs)
        self.words = sorted(set(re.findall(r"(?<![\w.])[a-z]{3,12}(?![\w.])", text)))
        # By entry, lest the many tiny modules drown the large ones.
        self.places = [(d, i) for d in documents for i in range(len(d.entries))]

    def draw(self, level: Level) -> Sample:
        """Return a context with at least one question."""
        while True:
            passages = self._passages(level)
            questions = ask(passages, self.rng, level.questions)
            if questions:
                return Sample(tuple(passages), tuple(questions))

    def _passages(self, level: Level) -> list[Passage]:
        rng = self.rng
        style = Style.draw(rng)
        count = rng.choice(level.passages)
        document, passages = None, []
        while len(passages) < count:
            if document is None or rng.random() < 0.5:
                document, start = self._document(level)
            else:  # Passages retrieved together often come from one document.
                start = rng.randrange(len(document.entries))
            if rng.random() < 0.1:
                style = Style.draw(rng)
            passage = render(document, start, rng.randint(*level.characters), style, rng)
            if passage.text and all(passage.text != other.text for other in passages):
                passages.append(passage)
            elif not passage.spans:
                document = None
        return passages

    def _document(self, level: Level) -> tuple[Document, int]:
        if self.rng.random() < level.invented:
            return invent_document(self.words, self.rng), 0
        document, start = self.rng.choice(self.places)
        # Renaming a whole large module would be slow: keep the part that can be shown.
        if self.rng.random() < level.disguised:
            near = Document(document.name, document.entries[start : start + 6])
            return disguise(near, self.rng), 0
        return document, start


class Encoder:
    """Encodes samples exactly as prompt template and chat template lay them out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.template = Template(PROMPT.read_text(encoding="utf-8"))

    def ids(self, text: str) -> list[int]:
        """Return the token ids of ``text``."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def user_message(self, sample: Sample, question: str) -> str:
        """Render the prompt that production would send."""
        hits = [Hit(n, p.title, p.text) for n, p in enumerate(sample.passages, 1)]
        return str(self.template.render(question=question, hits=hits))

    def encode(self, sample: Sample) -> Encoded:
        """Encode the context once and every question on its own."""
        marker = "\0"
        message = self.user_message(sample, marker)
        head = message.rindex("Question:")
        context = self.ids(BOS + USER + message[:head])
        turns = []
        for question in sample.questions:
            asked = message[head:].replace(marker, question.text) + ASSISTANT
            turns.append((self.ids(asked), self.ids(answer_text(question) + EOS)))
        return Encoded(context, turns)


def answer_text(question: Question) -> str:
    """Return the reply that is wanted: the sentence, word for word."""
    return question.answer


def collate(encoded: list[Encoded]) -> Batch:
    """Pad samples into one batch in which questions cannot see each other."""
    length = max(map(len, encoded))
    input_ids = torch.zeros(len(encoded), length, dtype=torch.long)
    position_ids = torch.zeros_like(input_ids)
    segments = torch.full_like(input_ids, -1)
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    turns: list[int] = []
    turn = 0
    for row, sample in enumerate(encoded):
        pieces = [sample.context, *(q + a for q, a in sample.turns)]
        end = 0
        for segment, piece in enumerate(pieces):
            place = slice(end, end + len(piece))
            input_ids[row, place] = torch.tensor(piece)
            first = len(sample.context) if segment else 0
            position_ids[row, place] = torch.arange(first, first + len(piece))
            segments[row, place] = segment
            end += len(piece)
            if segment:
                answer = sample.turns[segment - 1][1]
                rows += [row] * len(answer)
                columns += range(end - len(answer) - 1, end - 1)
                targets += answer
                turns += [turn] * len(answer)
                turn += 1
    return Batch(
        input_ids,
        position_ids,
        _mask(segments),
        *(torch.tensor(values) for values in (rows, columns, targets, turns)),
    )


def _mask(segments: Tensor) -> Tensor:
    """Allow earlier tokens of the context and of the same question."""
    length = segments.shape[1]
    seen, by = segments[:, None, :], segments[:, :, None]
    allowed = ((seen == 0) | (seen == by)) & torch.ones(length, length).tril().bool()
    return torch.zeros(allowed.shape).masked_fill(~allowed, MASKED)[:, None]


def batches(sampler: Sampler, encoder: Encoder, level: Level, tokens: int) -> Iterator[Batch]:
    """Yield batches of about ``tokens`` tokens from one pool of samples."""
    pool = sorted((encoder.encode(sampler.draw(level)) for _ in range(POOL)), key=len)
    groups: list[list[Encoded]] = [[]]
    for sample in pool:
        if groups[-1] and (len(groups[-1]) + 1) * len(sample) > tokens:
            groups.append([])
        groups[-1].append(sample)
    sampler.rng.shuffle(groups)
    yield from map(collate, groups)
