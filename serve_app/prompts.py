"""Prompt templates of pipelines: what they may use, and the sandbox they run in. Imports Jinja2: import late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = frozenset({"question", "hits"})


@dataclass(frozen=True, slots=True)
class Passage:
    """One element of ``hits``; ``number`` counts from 1 and is what an answer cites."""

    number: int
    title: str
    text: str


SAMPLE = (Passage(1, "First title", "First passage."), Passage(2, "Second title", "Second passage."))


def compile_prompt(text: str) -> Template:
    """Return the template of a prompt; it may use ``question`` (text) and ``hits`` (passages), nothing else.

    Raises:
        ValueError: a syntax error, another variable, or an attribute that a passage does not have.
    """
    # Plain text for a model, no HTML: nothing is escaped. A tag on a line of its own leaves no empty line.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True)
    try:
        used = meta.find_undeclared_variables(environment.parse(text))
        if unknown := sorted(used - VARIABLES - set(environment.globals)):
            raise ValueError(f"a prompt may use `question` and `hits`, not {', '.join(f'`{name}`' for name in unknown)}")
        template = environment.from_string(text)
        # Attributes show themselves only on use: `hit.titel` must fail here, not in the first request.
        render_prompt(template, "A question?", SAMPLE)
    except TemplateSyntaxError as err:
        raise ValueError(f"no valid Jinja2 template: line {err.lineno}: {err.message}") from err
    except (TemplateError, TypeError, ArithmeticError) as err:
        raise ValueError(f"the template fails on two sample passages: {err}") from err
    return template


def render_prompt(template: Template, question: str, hits: Sequence[Passage]) -> str:
    """Return the text that the model of a pipeline is asked."""
    return template.render(question=question, hits=hits)
