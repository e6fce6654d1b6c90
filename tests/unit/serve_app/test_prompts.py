"""Prompt templates: what they may use, and what the shipped one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.prompts import CONDENSE, Passage, Turn, compile_condense, compile_prompt, render_condense, render_prompt

CITE = Path(__file__).parents[3] / "prompts" / "cite.j2"


def test_a_template_sees_the_question_and_the_passages() -> None:
    template = compile_prompt("{% for h in hits %}[{{ h.number }}] {{ h.title }}: {{ h.text }}\n{% endfor %}{{ question }}")
    assert render_prompt(template, "Why <b>?", [Passage(1, "T", "x"), Passage(2, "U", "y")]) == "[1] T: x\n[2] U: y\nWhy <b>?"


def test_a_template_does_not_read_what_it_prints() -> None:
    assert render_prompt(compile_prompt("{{ question }}"), "{{ hits }}", []) == "{{ hits }}"


def test_builtins_of_the_language_are_no_unknown_variables() -> None:
    assert render_prompt(compile_prompt("{% for i in range(2) %}{{ i }}{{ loop.last }}{% endfor %}"), "q", []) == "0False1True"


WRONG = {
    "syntax": ("a\n{% for x in hits %}", "no valid Jinja2 template: line 2: Unexpected end of template"),
    "variable": ("{{ context }} {{ a }}", "a prompt may use `question` and `hits`, not `a`, `context`"),
    "attribute": ("{% for h in hits %}{{ h.titel }}{% endfor %}", "the template fails on two sample passages: .*'titel'"),
    "filter": ("{{ question | nope }}", "no valid Jinja2 template: line 1: No filter named 'nope'"),
    "file": ("{% include 'x' %}", "the template fails on two sample passages: no loader"),
    "sandbox": (
        "{{ question.__class__.__mro__ }}",
        "the template fails on two sample passages: access to attribute '__class__'",
    ),
    "large": ("{% for i in range(9999999) %}{% endfor %}", "the template fails on two sample passages: Range too big"),
    "zero": ("{{ 1 // 0 }}", "the template fails on two sample passages: .*zero"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_template_that_would_fail_later_is_refused_now(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_prompt(text)


def test_a_template_may_have_to_do_without_passages() -> None:
    compile_prompt("{{ hits[0].text }}")
    with pytest.raises(ValueError, match="fails without passages, which `no_passages: answer` gives it"):
        compile_prompt("{{ hits[0].text }}", may_be_empty=True)
    assert render_prompt(compile_prompt(CITE.read_text(encoding="utf-8"), may_be_empty=True), "q", []).endswith("Question: q")


def test_a_condense_prompt_sees_the_question_and_the_turns_before_it() -> None:
    template = compile_condense("{% for t in history %}{{ t.role }}: {{ t.text }}\n{% endfor %}{{ question }}")
    assert render_condense(template, "Why?", [Turn("user", "a"), Turn("assistant", "b")]) == "user: a\nassistant: b\nWhy?"


@pytest.mark.parametrize("text", ["Rewrite it.", "{{ history[0].text }}", "{% set q = question %}Rewrite it."])
def test_a_condense_prompt_without_the_question_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must use `\{\{ question \}\}`"):
        compile_condense(text)


def test_a_condense_prompt_has_no_passages() -> None:
    with pytest.raises(ValueError, match="a condense prompt may use `question` and `history`, not `hits`"):
        compile_condense("{{ hits }}")


def test_the_built_in_condense_prompt_ends_with_the_question() -> None:
    text = render_condense(compile_condense(CONDENSE), "Why?", [Turn("user", "Who?")])
    assert text.endswith("user: Who?\n\nQuestion: Why?")


def test_the_shipped_prompt_numbers_the_passages_and_asks_for_citations() -> None:
    text = render_prompt(compile_prompt(CITE.read_text(encoding="utf-8")), "How?", [Passage(1, "T", "x"), Passage(2, "U", "y")])
    assert text.endswith("Passages:\n\n[1] T\nx\n\n[2] U\ny\n\nQuestion: How?")
    assert "[1] or [2][3]" in text
