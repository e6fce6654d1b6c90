"""How the residual stream is divided, and the embeddings that fill it at the start."""

from __future__ import annotations

import re

import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.demo.questions import STOP_WORDS
from models.demo.tokenizer import ASSISTANT, BOS, EOS, QUESTION_MARK, SOURCE_MARKS, SPECIAL, TEXT_MARKS

WIDTH = 384
NEWLINE = "Ċ"  # as the vocabulary spells it
CONSTANT_SIZE = 4.0  # the same in every token, so that later sums hardly change the stream's scale
EMBEDDING_NORM = 5.0
# Log-odds of passage n before any match is seen: retrieval puts the best first.
PRIOR = (0.80, 0.76, 0.745, 0.735, 0.73, 0.725, 0.72, 0.715, 0.71)
# Words that say nothing of what a question is about.
PLAIN_WORDS = STOP_WORDS | set(
    """function class method describe explain documentation tell about work happens call mean purpose said
    say question module return returns object""".split()  # noqa: SIM905
)


def _slots() -> dict[str, slice]:
    sizes = {
        "token": 80,  # a code of the token itself
        "stem": 44,  # a code shared by `Return`, ` returns` and ` return`; nothing for plain words
        "flags": 11,
        "mark": 9,  # the number, if the token is a mark
        "passage": 9,  # the number of the latest mark
        "region": 3,  # its kind: title, text or question
        "previous": 40,  # shortened codes of the last three tokens
        "earlier": 40,
        "earliest": 40,
        "next": 80,  # code of the token to be written
        "next_flags": 4,  # what stands next in the sentence being copied
        "later_flags": 3,  # and what stands after that
        "title_votes": 9,
        "text_votes": 9,
        "after_mark": 1,  # whether the last token is the mark of a text
        "ballast": 1,  # makes all embeddings equally long
    }
    slots, end = {}, 0
    for name, size in sizes.items():
        slots[name] = slice(end, end + size)
        end += size
    return slots


SLOTS = _slots()
FLAGS = {
    name: SLOTS["flags"].start + i
    for i, name in enumerate(
        ("constant", "source", "text", "question", "answer", "is_mark", "first", "telling", "end", "line", "fresh")
    )
}


def rows(slot: str) -> Tensor:
    """Return unit vectors, one for each dimension of a slot."""
    return torch.eye(WIDTH)[SLOTS[slot]]


def flag(name: str) -> Tensor:
    """Return the unit vector of a flag; that of the constant is scaled to read as 1."""
    return torch.eye(WIDTH)[FLAGS[name]] / (CONSTANT_SIZE if name == "constant" else 1.0)


def stem(token: str) -> str:
    """Fold the leading space, case and the commonest endings."""
    return re.sub(r"(?<=..)(es|s|ing|ed|e)$", "", token.lstrip("Ġ").lower())


def set_embeddings(embedding: Tensor, unembedding: Tensor, tokenizer: Tokenizer, *, generator: torch.Generator) -> None:
    """Fill both tables."""
    reserved = [*TEXT_MARKS, EOS]  # never copied: a dimension of their own keeps them apart from all others
    size = SLOTS["token"].stop - len(reserved)
    stems: dict[str, Tensor] = {}
    embedding.zero_()
    unembedding.zero_()
    for token, index in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        code = torch.zeros(SLOTS["token"].stop)
        if token in reserved:
            code[size + reserved.index(token)] = 1.0
        elif token not in SPECIAL:
            code[:size] = _unit(size, generator)
        unembedding[index, SLOTS["next"]] = code
        embedding[index, SLOTS["token"]] = code
        embedding[index, FLAGS["constant"]] = CONSTANT_SIZE
        for name in _flags_of(token):
            embedding[index, FLAGS[name]] = 1.0
        if _is_telling(token):
            if stem(token) not in stems:
                stems[stem(token)] = _unit(44, generator)
            embedding[index, SLOTS["stem"]] = stems[stem(token)]
    _set_marks(embedding, tokenizer)
    embedding[tokenizer.token_to_id(ASSISTANT), SLOTS["next"]][size : size + len(PRIOR)] = torch.tensor(PRIOR)
    embedding[:, SLOTS["ballast"]] = (EMBEDDING_NORM**2 - embedding.square().sum(1, keepdim=True)).sqrt()


def _set_marks(embedding: Tensor, tokenizer: Tokenizer) -> None:
    for marks in (TEXT_MARKS, SOURCE_MARKS):
        for number, token in enumerate(marks):
            embedding[tokenizer.token_to_id(token), SLOTS["mark"].start + number] = 1.0


def _unit(size: int, generator: torch.Generator) -> Tensor:
    code = torch.randn(size, generator=generator)
    return code / code.norm()


def _is_telling(token: str) -> bool:
    word = token.lstrip("Ġ")
    return re.fullmatch("[A-Za-z]{2,}", word) is not None and word.lower() not in PLAIN_WORDS


def _flags_of(token: str) -> list[str]:
    marks = {"source": token in SOURCE_MARKS, "text": token in TEXT_MARKS, "question": token == QUESTION_MARK}
    others = {
        "answer": token == ASSISTANT,
        "is_mark": any(marks.values()),
        "first": token == BOS,
        "telling": _is_telling(token),
        "end": re.fullmatch(r"Ġ?[.!?]+", token) is not None,
        "line": token == NEWLINE,
        "fresh": token == NEWLINE or re.fullmatch(r"Ġ+|Ġ[A-Z\"'`(*\[].*", token) is not None,
    }
    return [name for name, holds in (marks | others).items() if holds]
