from __future__ import annotations

import asyncio

import pytest

from deployments.llm.phases import StartPhases, StartTimeout
from tests.unit.deployments.clock import Clock


def test_phases_are_timed_and_told_as_they_end() -> None:
    clock, told = Clock(), []

    async def start() -> StartPhases:
        phases = StartPhases(timeout_s=100, clock=clock, on_end=lambda *each: told.append(each))
        for name, seconds in (("download", 20.0), ("load", 30.0)):
            async with phases.phase(name):
                assert phases.current == name
                clock.now_s += seconds
        return phases

    phases = asyncio.run(start())
    assert (phases.current, phases.seconds) == ("", {"download": 20.0, "load": 30.0})
    assert told == [("download", 20.0), ("load", 30.0)]


def test_a_start_that_takes_too_long_names_the_phase_and_what_came_before() -> None:
    clock = Clock()

    async def start() -> None:
        phases = StartPhases(timeout_s=100, clock=clock)
        async with phases.phase("download"):
            clock.now_s += 90.0
        clock.now_s += 10.0
        async with phases.phase("load"):
            await asyncio.Event().wait()

    told = (
        "the replica did not start within 100 s: load has run for 0 s, download took 90 s; "
        "raise engine.start_timeout_s, or see the replica's log for what load waits for"
    )
    with pytest.raises(StartTimeout, match=f"^{told}$"):
        asyncio.run(start())


def test_a_time_limit_of_what_runs_in_a_phase_is_its_own_error() -> None:
    async def start() -> None:
        async with StartPhases(timeout_s=100).phase("load"):
            raise TimeoutError("of vLLM")

    with pytest.raises(TimeoutError, match="of vLLM"):
        asyncio.run(start())
