"""StoreWatch: whether a replica's own way to its vector store has broken. A store that restarts is no reason to do so, too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.errors import PlatformError, Unavailable

UNHEALTHY_AFTER = 10  # calls in a row
UNHEALTHY_AFTER_S = 300.0  # of nothing else: a store's own restart takes less
HUNG_S = 5.0  # a call that was given up sooner says nothing


class StoreWatch:
    """Counts calls of a store that fail or hang. What a store says of a question, or of a collection, is an answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: monotonic seconds."""
        self._clock = clock
        self._failures = 0
        self._failing_since_s = 0.0
        self._last = ""

    @contextmanager
    def watched(self, *, is_search: bool = True) -> Iterator[None]:
        """Count what is inside; raises what it raises. Only a search that works proves that searches do."""
        begun_s = self._clock()
        try:
            yield
        except asyncio.CancelledError:
            if (waited_s := self._clock() - begun_s) >= HUNG_S:
                self._failed(begun_s, f"no answer within {waited_s:.0f} s")
            raise
        except Exception as err:
            if isinstance(err, PlatformError) and not isinstance(err, Unavailable):
                self._worked(is_search=is_search)
            else:
                self._failed(begun_s, f"{type(err).__name__}: {err}")
            raise
        self._worked(is_search=is_search)

    def check(self) -> None:
        """Raise RuntimeError when searches have only failed for long."""
        if self._failures >= UNHEALTHY_AFTER and (lasted_s := self._clock() - self._failing_since_s) >= UNHEALTHY_AFTER_S:
            raise RuntimeError(
                f"the last {self._failures} calls of the vector store failed, for {lasted_s:.0f} s now; {self._last}"
            )

    def _worked(self, *, is_search: bool) -> None:
        if is_search:
            self._failures = 0

    def _failed(self, begun_s: float, what: str) -> None:
        if not self._failures:
            self._failing_since_s = begun_s
        self._failures += 1
        self._last = what
