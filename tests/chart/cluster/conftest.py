"""One cluster with one installation for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chart.cluster.installation import Installation
from tests.chart.cluster.targets import target


@pytest.fixture(scope="module")
def bare_installation() -> Iterator[Installation]:
    """The chart, installed, in whatever state the test before left it."""
    with target() as found:
        made = Installation(found)
        made.install()
        yield made


@pytest.fixture
def installation(bare_installation: Installation) -> Installation:
    """The chart, installed, with 90 percent on stable and 10 on canary."""
    bare_installation.have({"stable": 90, "canary": 10})
    return bare_installation


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line that is seen although the test passes: figures of the run."""

    def told(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {line}")  # noqa: T201

    return told
