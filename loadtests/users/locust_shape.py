"""LoadShape: the scenario's shape, as Locust asks for it once a second."""

from __future__ import annotations

from typing import Any

from locust import LoadTestShape

from loadtests.scenario import Mode, Scenario
from loadtests.shapes import level_at
from loadtests.users.conductor import MasterSide


def load_shape(scenario: Scenario) -> tuple[type[Any], list[MasterSide]]:
    """Return the shape's class, and a list that takes the side which tells it the time, when that is there."""
    masters: list[MasterSide] = []

    class LoadShape(LoadTestShape):
        """How many users there are; an open loop has one for each worker process."""

        def tick(self) -> tuple[int, float] | None:
            master = masters[-1]
            if master.is_gathered:
                return None
            if not master.is_ending and (master.elapsed_s >= scenario.duration or master.has_failed_a_step()):
                master.end()
            users = _users(scenario, master, workers=max(1, getattr(self.runner, "worker_count", 1)))
            return users, float(max(1, users))

    return LoadShape, masters


def _users(scenario: Scenario, master: MasterSide, *, workers: int) -> int:
    if scenario.load.mode is Mode.OPEN:
        return workers
    at_s = min(master.elapsed_s, scenario.duration - 1e-9)
    return max(1, round(level_at(scenario.load.shape, at_s, scenario.duration)))
