from __future__ import annotations

import random
import statistics

import pytest

from loadtests import lengths
from loadtests.scenario_lengths import Lengths, Spread


def test_a_fixed_length_is_always_the_same() -> None:
    assert {lengths.draw(Spread(tokens=7), random.Random(number)) for number in range(20)} == {7}


def test_a_log_normal_has_its_median_and_mean_and_never_more() -> None:
    spread = Spread(median=100.0, mean=150.0, most=100_000)
    drawn = [lengths.draw(spread, random.Random(number)) for number in range(4000)]
    assert statistics.median(drawn) == pytest.approx(100, rel=0.06)
    assert statistics.mean(drawn) == pytest.approx(150, rel=0.06)
    assert max(lengths.draw(Spread(median=90.0, mean=150.0, most=100), random.Random(n)) for n in range(200)) == 100


def test_what_is_said_replaces_the_preset() -> None:
    made = Lengths(preset="rag", output=Spread(tokens=5))
    assert lengths.prompt_spread(made).median == 1800
    assert lengths.output_spread(made).tokens == 5


@pytest.mark.parametrize("tokens", [1, 50, 20_000])
def test_text_is_about_as_long_as_asked_for(tokens: int) -> None:
    made = lengths.text(tokens, random.Random(1), is_unique=False)
    assert len(made) == pytest.approx(tokens * lengths.CHARS_PER_TOKEN, abs=2)


def test_unique_texts_differ_from_the_first_words_on() -> None:
    begins = {lengths.text(50, random.Random(number), is_unique=True)[:16] for number in range(200)}
    assert len(begins) == 200


def test_the_same_chance_gives_the_same_text() -> None:
    assert lengths.text(80, random.Random(5), is_unique=True) == lengths.text(80, random.Random(5), is_unique=True)
    assert lengths.shared_prefix(40) == lengths.shared_prefix(40)


def test_the_bundled_questions_are_questions() -> None:
    assert all(question.endswith("?") for question in lengths.questions())
