"""One cluster of three nodes for all faults, under steady load; what each fault did is printed as a table at the end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.chaos import platform
from tests.chaos.cluster import ChaosCluster
from tests.chaos.network import why_not_here
from tests.chaos.steady import Effect, SteadyLoad
from tests.chaos.table import table

RECORDS = "MANTA_CHAOS_RECORDS"  # a file that gets what every fault did, one JSON object a line
_EFFECTS: list[Effect] = []


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosCluster]:
    """A head and two workers on which the platform runs, two copies of each part."""
    if reason := why_not_here():  # no skip: only who asks for these tests gets here, and nothing broken must not look unbroken
        pytest.fail(f"make test-chaos and make test-soak {reason}")
    with ChaosCluster() as made:
        platform.prepare(made, tmp_path_factory.mktemp("platform"))
        yield made


@pytest.fixture(scope="module")
def steady(cluster: ChaosCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SteadyLoad]:
    """Load on the platform for as long as a module has tests."""
    out = tmp_path_factory.mktemp("load") / "records.jsonl"
    with SteadyLoad(cluster.urls(), out, *platform.RATES) as made:
        yield made


@pytest.fixture
def load(steady: SteadyLoad) -> SteadyLoad:
    """The load, once nothing of an earlier fault is felt any more."""
    deadline_s = time.monotonic() + 30
    while not steady.records(0):
        assert time.monotonic() < deadline_s, "nothing is answered"
        time.sleep(0.5)
    steady.wait_calm()
    return steady


@pytest.fixture
def note() -> Callable[[Effect], None]:
    """Keep what a fault did for the table."""

    def keep(effect: Effect) -> None:
        _EFFECTS.append(effect)
        if path := os.environ.get(RECORDS):
            with Path(path).open("a", encoding="utf-8") as out:
                out.write(json.dumps(asdict(effect)) + "\n")

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if _EFFECTS:
        terminalreporter.write_line("\n" + table(_EFFECTS))
