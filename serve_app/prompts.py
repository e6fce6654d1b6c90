"""Prompt templates of pipelines: what they may use, and the sandbox they run in. Imports Jinja2: import late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment


@dataclass(frozen=True, slots=True)
class Passage:
    """One element of ``hits``; ``number`` counts from 1 and is what an answer cites."""

    number: int
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One element of ``history``: who spoke (``user`` or ``assistant``) and what was said."""

    role: str
    text: str


SAMPLE = (Passage(1, "First title", "First passage."), Passage(2, "Second title", "Second passage."))
SAMPLE_HISTORY = (Turn("user", "A first question?"), Turn("assistant", "Its answer."))
CONDENSE = """\
Below are the latest messages of a conversation, and then a question. Rewrite the question so that it can be understood \
without the conversation: put names in place of words such as "it", "that" or "the second one". Keep its language, and do \
not answer it. If it can be understood alone, repeat it. Write the question and nothing else.

{% for turn in history %}
{{ turn.role }}: {{ turn.text }}

{% endfor %}
Question: {{ question }}
"""
_Samples = Mapping[str, Mapping[str, Any]]  # what they stand for -> variables


def compile_prompt(text: str, *, may_be_empty: bool = False) -> Template:
    """Return the template of a prompt; it may use ``question`` (text) and ``hits`` (passages), nothing else.

    Args:
        text: the template.
        may_be_empty: the template will also be rendered without any passage.

    Raises:
        ValueError: a syntax error, another variable, or an attribute that a passage does not have.
    """
    samples: dict[str, Mapping[str, Any]] = {"on two sample passages": {"question": "A question?", "hits": SAMPLE}}
    if may_be_empty:
        samples["without passages, which `no_passages: answer` gives it"] = {"question": "A question?", "hits": ()}
    return _compile(text, "a prompt", samples)


def render_prompt(template: Template, question: str, hits: Sequence[Passage]) -> str:
    """Return the text that the model of a pipeline is asked."""
    return template.render(question=question, hits=hits)


def compile_condense(text: str) -> Template:
    """Return the template that asks for a search query; it may use ``question`` (text) and ``history`` (turns).

    Raises:
        ValueError: a syntax error, another variable, an attribute that a turn does not have, or no use of ``question``.
    """
    questions = {"on two sample turns": "A question?", "on two sample turns and another question": "What else is there?"}
    samples = {case: {"question": question, "history": SAMPLE_HISTORY} for case, question in questions.items()}
    template = _compile(text, "a condense prompt", samples)
    if len({template.render(variables) for variables in samples.values()}) == 1:
        raise ValueError("a condense prompt must use `{{ question }}`, or every search would be for the same text")
    return template


def render_condense(template: Template, question: str, history: Sequence[Turn]) -> str:
    """Return the text that asks a model for the search query of a conversation."""
    return template.render(question=question, history=history)


def _compile(text: str, what: str, samples: _Samples) -> Template:
    """Return a template that has rendered all samples; they share their variables' names."""
    # Plain text for a model, no HTML: nothing is escaped. A tag on a line of its own leaves no empty line.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True)
    known = list(next(iter(samples.values())))
    try:
        used = meta.find_undeclared_variables(environment.parse(text))
        if unknown := sorted(used - set(known) - set(environment.globals)):
            names = " and ".join(f"`{name}`" for name in known)
            raise ValueError(f"{what} may use {names}, not {', '.join(f'`{name}`' for name in unknown)}")
        template = environment.from_string(text)
    except TemplateSyntaxError as err:
        raise ValueError(f"no valid Jinja2 template: line {err.lineno}: {err.message}") from err
    # Attributes show themselves only on use: `hit.titel` must fail here, not in the first request.
    for case, variables in samples.items():
        try:
            template.render(variables)
        except (TemplateError, TypeError, ArithmeticError) as err:
            raise ValueError(f"the template fails {case}: {err}") from err
    return template
