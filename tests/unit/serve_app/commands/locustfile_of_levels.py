"""Levels of users who stream from one server; fires the events that Manta's own load tests fire. Run by test_tune.py."""

from __future__ import annotations

import time
from typing import Any

import locust.stats
from locust import HttpUser, LoadTestShape, task

locust.stats.CURRENT_RESPONSE_TIME_PERCENTILE_WINDOW = 2  # seconds: the levels are short
LEVELS = ((8, 4), (16, 8))  # until seconds, users


class Chats(HttpUser):
    """Asks again as soon as it is answered."""

    @task
    def chat(self) -> None:
        """Stream one answer."""
        begun_s = time.perf_counter()
        with self.client.get("/v1/chat", stream=True, catch_response=True) as response:
            times = [time.perf_counter() for _ in response.iter_lines(chunk_size=1)]
            response.request_meta["response_time"] = 1000 * (times[-1] - begun_s)
        self._tell("TTFT", times[0] - begun_s)
        self._tell("ITL", (times[-1] - times[0]) / (len(times) - 1))

    def _tell(self, kind: str, seconds: float) -> None:
        event: dict[str, Any] = {"request_type": kind, "name": "chat", "response_time": 1000 * seconds}
        self.environment.events.request.fire(**event, response_length=0, exception=None)


class Levels(LoadTestShape):
    """Goes through the levels."""

    def tick(self) -> tuple[int, float] | None:
        """Return users and how many to start a second."""
        elapsed_s: float = self.get_run_time()  # type: ignore[no-untyped-call]
        users = next((users for until_s, users in LEVELS if elapsed_s < until_s), None)
        return None if users is None else (users, 100)
