"""One platform for all integration tests: Ray takes half a minute to start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.platform import Platform, simulated

CONFIG: dict[str, Any] = {
    "models": [{"name": "chat", "variants": [simulated(latency={"decode_s_per_token": 0.05})]}],
    "router": {"cpus": 0.5, "drain_timeout_s": 60},
}


@pytest.fixture(scope="session")
def bare_platform() -> Iterator[Platform]:
    """A running cluster, with whatever configuration the test before left in force."""
    made = Platform(CONFIG)
    with made.cluster:
        yield made


@pytest.fixture
def platform(bare_platform: Platform) -> Platform:
    """The running platform with CONFIG in force."""
    bare_platform.deploy(CONFIG)
    return bare_platform
