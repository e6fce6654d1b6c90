"""Clients as their users run them, each in a program of its own, against one platform on real vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.clients.checks import Place
from tests.e2e.clients.programs import PROGRAMS, Program

# The first test pays for the start of the platform, and a program's first one for the whole program.
pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.matrix, pytest.mark.timeout(2400)]

Lines = dict[str, dict[str, Any]]


EVERY_CHECK = [
    pytest.param(program, check, id=f"{program.client}-{program.module}-{check}")
    for program in PROGRAMS
    for check in program.checks()
]


@pytest.fixture(scope="session")
def ran() -> dict[str, Lines]:
    """What programs have printed; each runs once, and one that broke has nothing to show."""
    return {}


@pytest.mark.parametrize(("program", "check"), EVERY_CHECK)
def test_a_client_works_unmodified(program: Program, check: str, place: Place, ran: dict[str, Lines]) -> None:
    name = f"{program.client}/{program.module}"
    if name not in ran:
        ran[name] = {}
        ran[name] = program.run(place)
    assert check in ran[name], f"{name} ended before this check"
    assert ran[name][check]["ok"], ran[name][check]["detail"]
