"""Requests that nobody would write, through Serve's proxy to a simulated engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzzing import Target, fuzz_bodies, fuzz_document
from tests.integration.platform import Platform, simulated

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]

CASES = 2_000
CONFIG: dict[str, Any] = {
    "models": [{"name": "chat", "variants": [simulated()]}],
    "router": {"cpus": 0.5, "replicas": 1, "drain_timeout_s": 60},
}


@pytest.fixture
def target(bare_platform: Platform) -> Iterator[Target]:
    bare_platform.deploy(CONFIG)
    bare_platform.wait_replicas(1)
    with Target(bare_platform.url) as opened:
        yield opened


def test_answers_are_as_the_document_says(target: Target, bare_platform: Platform) -> None:
    assert fuzz_document(target, examples=60) >= CASES
    assert bare_platform.variant()["replicas"]["ready"] == 1


def test_no_body_makes_a_server_fail(target: Target, bare_platform: Platform) -> None:
    assert fuzz_bodies(target, examples=60) >= CASES // 2
    assert bare_platform.variant()["replicas"]["ready"] == 1
