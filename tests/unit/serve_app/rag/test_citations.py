from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.contracts import Chunk, Hit
from serve_app.rag.citations import Citations, words_of

BIRDS = "Owls hunt at night.  Penguins (all of them) live in the Antarctic!\n\nParrots talk"


def hit(text: str, start: int = 100) -> Hit:
    return Hit(Chunk("d#0", "d", 0, "T", (), text, start, start + len(text)), 0.03278688)


def quote(text: str, question: str, answer: str = "") -> str:
    [citation] = Citations([hit(text)], question).of(answer)
    return str(citation["quote"])


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Where do penguins live?", "", "Penguins (all of them) live in the Antarctic!"),
        ("Which bird speaks?", "PARROTS talk.", "Parrots talk"),
        ("When?", "They hunt at night.", "Owls hunt at night."),
    ],
    ids=["question", "answer", "case"],
)
def test_the_sentence_that_shares_most_with_question_and_answer_is_quoted(question: str, answer: str, expected: str) -> None:
    assert quote(BIRDS, question, answer) == expected


def test_words_that_every_sentence_has_count_little() -> None:
    text = "What is the sum of it? What is the rest of it? Quarks have the mass. What is the end of it?"
    assert quote(text, "What is the mass of quarks?") == "Quarks have the mass."


@pytest.mark.parametrize("text", [BIRDS, "", "   ", "...", "🦉"])
def test_where_nothing_is_shared_the_whole_passage_is_quoted(text: str) -> None:
    assert quote(text, "zzz") == text


def test_of_equal_sentences_the_first_is_quoted() -> None:
    [citation] = Citations([hit("A cat. A cat. A cat.")], "cat").of("")
    assert (citation["quote_start"], citation["quote_end"]) == (100, 106)


@pytest.mark.parametrize(
    ("text", "question", "expected"),
    [
        ("She said “stop.” Then she left.", "left then", "Then she left."),
        ("Pi is 3.14 or so. It never ends.", "pi", "Pi is 3.14 or so."),
        ("一匹の猫がいる。犬はいない。", "犬", "犬はいない。"),
        ("os.getcwd() gives the folder\n\nos.chdir() sets it", "chdir", "os.chdir() sets it"),
        ("a wrapped\nline here. Next.", "line", "a wrapped\nline here."),
    ],
    ids=["quotation-mark", "decimal", "japanese", "paragraphs", "wrapped"],
)
def test_sentences_end_where_readers_see_it(text: str, question: str, expected: str) -> None:
    assert quote(text, question) == expected


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab .!?\n\"')。é"), max_size=60), question=st.text(alphabet="ab ", max_size=8))
def test_a_quote_is_where_its_offsets_say(text: str, question: str) -> None:
    [citation] = Citations([hit(text)], question).of("")
    assert text[citation["quote_start"] - 100 : citation["quote_end"] - 100] == citation["quote"]
    assert citation["start"] <= citation["quote_start"] <= citation["quote_end"] <= citation["end"]


def test_citations_are_numbered_as_in_the_prompt() -> None:
    found = Citations([hit("one"), hit("two", 7)], "").of("")
    assert [(c["number"], c["start"], c["score"], c["text"]) for c in found] == [
        (1, 100, 0.032787, "one"),
        (2, 7, 0.032787, "two"),
    ]


def test_words_are_compared_without_case() -> None:
    assert words_of("Straße STRASSE, 東京x") == {"strasse", "東", "京", "x"}
