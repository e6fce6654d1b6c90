"""Requests that nobody would write, through Serve's proxy to a platform with a simulated engine and real embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzzing import Target, fuzz_bodies, fuzz_document
from tests.integration.platform import Platform, simulated

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]

CASES = 2_000
VERSION = {
    "name": "v1",
    "embedder": "minilm",
    "collection": "books",
    "prompt": "{% for hit in hits %}{{ hit.text }}\n{% endfor %}{{ question }}",
    "model": "chat",
    "no_passages": "answer",
    "overrides": {"max_top_k": 10, "vector_stores": True},
}


def everything(folder: Path) -> dict[str, Any]:
    """Return a platform with one of each; the names are those that the fuzzing asks for."""
    return {
        "models": [{"name": "chat", "variants": [simulated()]}],
        "embedders": [{"name": "minilm", "source": "sentence-transformers/all-MiniLM-L6-v2"}],
        "pipelines": [{"name": "docs", "versions": [VERSION]}],
        "vector_store": {"uri": str(folder / "lance")},
        "vector_stores": {"embedder": "minilm"},
        "router": {"cpus": 0.5, "replicas": 1, "drain_timeout_s": 60},
    }


@pytest.fixture
def target(bare_platform: Platform, tmp_path: Path) -> Iterator[Target]:
    bare_platform.deploy(everything(tmp_path))
    bare_platform.wait_replicas(1)
    with Target(bare_platform.url) as opened:
        yield opened


def test_answers_are_as_the_document_says(target: Target, bare_platform: Platform) -> None:
    assert fuzz_document(target, examples=60) >= CASES
    assert bare_platform.variant()["replicas"]["ready"] == 1


def test_no_body_makes_a_server_fail(target: Target, bare_platform: Platform) -> None:
    assert fuzz_bodies(target, examples=60) >= CASES // 2
    assert bare_platform.variant()["replicas"]["ready"] == 1
