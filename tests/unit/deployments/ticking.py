"""Rollouts that tick by themselves, ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from deployments.rollouts import Rollouts


async def end_ticking(started: Iterable[Rollouts]) -> None:
    """End what the tests' Rollouts do in the background."""
    ticking = [each._ticking for each in started if each._ticking is not None]
    for task in ticking:
        task.cancel()
    await asyncio.gather(*ticking, return_exceptions=True)
