from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.llm.vllm import VllmEngine, parse_section
from serve_app.config import VariantConfig
from serve_app.contracts import EngineLoad
from tests.unit.deployments.clock import Clock


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


def engine(clock: Clock, *, has_work: bool = True) -> VllmEngine:
    """Return one whose engine has started, in the parts that its load is made of."""
    made = VllmEngine("chat", VariantConfig(name="stable", source="org/model"), clock=clock)
    llm: Any = SimpleNamespace(
        output_processor=SimpleNamespace(has_unfinished_requests=lambda: has_work),
        vllm_config=SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=256)),
    )
    made._llm = llm
    return made


SCHEDULER = SimpleNamespace(num_waiting_reqs=4, num_skipped_waiting_reqs=1, num_running_reqs=7, kv_cache_usage=0.5)


def test_an_engine_that_starts_has_no_load_and_no_known_slots() -> None:
    assert VllmEngine("chat", VariantConfig(name="stable", source="org/model")).load() == EngineLoad()


def test_its_load_is_what_the_scheduler_last_said() -> None:
    made = engine(Clock())
    made._latest.record(SCHEDULER, None)
    made._latest.record(None, None)
    assert made.load() == EngineLoad(waiting=5, running=7, kv_cache_usage_ratio=0.5, slots=256)


def test_the_schedulers_last_word_is_not_believed_once_nothing_is_unfinished() -> None:
    made = engine(Clock(), has_work=False)
    made._latest.record(SCHEDULER, None)
    assert made.load() == EngineLoad(slots=256)


def test_tokens_are_counted_over_the_last_seconds() -> None:
    clock = Clock()
    made = engine(clock)
    for _ in range(100):
        clock.now_s += 0.1
        made._latest.record(None, SimpleNamespace(num_generation_tokens=7))
    assert made.load().tokens_per_s == pytest.approx(70, rel=0.05)
    clock.now_s += 60
    assert made.load().tokens_per_s == 0
