"""LoadTestedRollouts: Rollouts that takes results of load tests, and keeps the last one of each scenario."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from deployments.rollouts import Rollouts
from serve_app.errors import BadRequest, Unavailable
from serve_app.rollout.load_tests import KeptResult, KeptResults, LoadTestResult

logger = logging.getLogger("ray.serve")

KEY = "load_tests"
MOST_AHEAD_S = 60.0  # of the load generator's clock


class LoadTestedRollouts(Rollouts):
    """Rollouts with results of load tests, which `gates.load_test` goes by."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._load_tests = KeptResults()
        self._publishing = asyncio.Lock()

    async def load_tests(self) -> list[dict[str, Any]]:
        """Return the last result of each scenario, the newest first, as JSON."""
        return [kept.model_dump(mode="json") for kept in self._load_tests.results]

    async def publish_load_test(self, document: dict[str, Any], by: str) -> dict[str, Any]:
        """Take a result, and return it as it is kept; it is kept for good when this returns.

        Raises:
            BadRequest: its times lie ahead.
            RolloutConflict: a later run of the scenario is kept.
            Unavailable: the store is away; then nothing has changed.
        """
        result, now_s = LoadTestResult.model_validate(document), self._controller.wall()
        if (ahead_s := result.ended_s - now_s) > MOST_AHEAD_S:
            raise BadRequest(f"ended_s lies {ahead_s:.0f} s ahead; set the load generator's clock", param="ended_s")
        kept = KeptResult(received_s=now_s, by=by, result=result)
        async with self._publishing:  # two that come together must not undo each other
            new = self._load_tests.with_one(kept)
            if not await self._put(self._state, KEY, new.model_dump_json()):
                raise Unavailable("the result could not be kept, so it changes nothing; publish it again", retry_after_s=5)
            self._use(new)
        return kept.model_dump(mode="json")

    async def _restore(self) -> None:
        if (data := await self._state.get(KEY)) is not None:
            try:
                self._use(KeptResults.model_validate_json(data))
            except ValueError:  # of another version of this program
                logger.warning("results of load tests cannot be read any more; publish new ones")
        await super()._restore()

    def _use(self, results: KeptResults) -> None:
        self._load_tests = results
        self._controller.load_tests = results.by_scenario()
