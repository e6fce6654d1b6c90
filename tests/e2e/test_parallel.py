"""Tensor- and pipeline-parallel replicas on real vLLM: the same tokens as one rank's."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from tests.e2e.two_nodes import engine_platform, ranks

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(2400)]

NAMES = (
    *("abs", "all", "any", "bin", "chr", "dir", "divmod", "format", "hash", "hex"),
    *("iter", "len", "max", "min", "next", "oct", "ord", "pow", "round", "sum"),
)
PROMPTS = [f"{name}: {getattr(builtins, name).__doc__}"[:400] for name in NAMES]
TOKENS = 16


@pytest.fixture(scope="module")
def tokens_of_one_rank() -> list[list[int]]:
    with engine_platform({}) as platform:
        assert len(ranks()) == 1
        return platform.complete("chat", PROMPTS, max_tokens=TOKENS)


@pytest.mark.parametrize(
    ("shape", "has_two_nodes", "count"),
    [
        pytest.param({"tensor_parallel_size": 2}, False, 2, id="tp2-on-one-node"),
        pytest.param({"pipeline_parallel_size": 2}, True, 2, id="pp2-across-two-nodes"),
        pytest.param({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, True, 4, id="tp2-pp2-across-two-nodes"),
    ],
)
def test_ranks_together_choose_the_tokens_of_one_rank(
    shape: dict[str, Any], has_two_nodes: bool, count: int, tokens_of_one_rank: list[list[int]]
) -> None:
    with engine_platform(shape, has_two_nodes=has_two_nodes) as platform:
        assert len(ranks()) == count
        assert platform.complete("chat", PROMPTS, max_tokens=TOKENS) == tokens_of_one_rank
    assert len(tokens_of_one_rank) == 20
    assert {len(tokens) for tokens in tokens_of_one_rank} == {TOKENS}
