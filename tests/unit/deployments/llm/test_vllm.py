from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import pytest

from deployments.llm.vllm import parse_section


@dataclass(frozen=True)
class StructuredOutputs:
    """A section as vLLM's parser makes it."""

    backend: str

    @staticmethod
    def of(text: str) -> StructuredOutputs:
        if (backend := json.loads(text)["backend"]) not in ("auto", "xgrammar"):
            raise ValueError(backend)
        return StructuredOutputs(backend)


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("--structured-outputs-config", type=StructuredOutputs.of)
    return made


def test_a_section_becomes_what_the_engines_own_parser_makes_of_it(parser: argparse.ArgumentParser) -> None:
    section = parse_section(parser, "structured_outputs_config", {"backend": "xgrammar"})
    assert section == StructuredOutputs("xgrammar")


def test_a_section_that_the_engine_refuses_names_the_field(parser: argparse.ArgumentParser) -> None:
    with pytest.raises(ValueError, match=r"engine_args\.structured_outputs_config"):
        parse_section(parser, "structured_outputs_config", {"backend": "none"})
