"""The model's tokenizer: a small byte-level BPE and its chat template."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 3072
CONTEXT_LENGTH = 2048
NUMBERS = range(1, 10)  # of passages
TEXT_MARKS = tuple(f"[{n}]" for n in NUMBERS)
SOURCE_MARKS = tuple(f"SourceĠ{n}:" for n in NUMBERS)
QUESTION_MARK = "Question:"
MARK_REPEATS = 20_000  # enough for each mark to become one token
QUESTION_REPEATS = 200
PAD, BOS, EOS, SYSTEM, USER, ASSISTANT = SPECIAL = (
    "<|pad|>",
    "<|bos|>",
    "<|eos|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
)
# Every line break, digit and punctuation mark is its own word, so that a span is cut into
# the same tokens wherever it stands: verbatim copying is then copying of tokens.
# So are the marks that the prompt sets at the start of a line.
WORDS = (
    r"^\[[1-9]\]|^Source [1-9]:|^Question:"
    r"|\n|[ \t]+(?=[ \t])| ?[A-Za-z]+| ?[0-9]| ?\(\)"
    r"| ?([^\sA-Za-z0-9])\1*|\s"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], questions: Iterable[str]) -> Tokenizer:
    """Train the BPE on ``texts`` and on forms of questions; every byte stays representable."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    marks = (mark.replace("Ġ", " ") for mark in (*TEXT_MARKS, *SOURCE_MARKS, QUESTION_MARK))
    asked = (f" {question}" for question in questions for _ in range(QUESTION_REPEATS))
    repeated = chain((mark for mark in marks for _ in range(MARK_REPEATS)), asked)
    tokenizer.train_from_iterator(chain(texts, repeated), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json as transformers and vLLM read them."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
