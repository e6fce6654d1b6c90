"""An event loop whose time passes as fast as its tasks run: what takes a minute by the loop's clock takes a moment."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _NoWait(selectors.SelectSelector):
    """Asks for events without waiting; the time until the next timer is added to the loop's clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            message = "every task waits, and no timer will wake one"
            raise AssertionError(message)
        self.now_s += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that never sleeps."""

    def __init__(self) -> None:
        self._virtual = _NoWait()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return virtual seconds."""
        return self._virtual.now_s


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns on a loop of its own, whose clock is ``asyncio.get_running_loop().time``."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
