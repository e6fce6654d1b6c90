"""Recorder: begins and ends the records of requests, and has them read by whoever looks on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from serve_app.observing.record import Front, RequestRecord, set_current

logger = logging.getLogger("ray.serve")


class Observer(Protocol):
    """Looks on. What it raises is logged and changes nothing."""

    def began(self, record: RequestRecord) -> None:
        """See a request that has just arrived."""
        ...

    def ended(self, record: RequestRecord) -> None:
        """See a request whose answer has ended."""
        ...


class Recorder:
    """One per Router, on its event loop."""

    def __init__(self, observers: Iterable[Observer] = (), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._observers = tuple(observers)
        self._clock = clock

    def begin(
        self, front: Front, *, request_id: str, traceparent: str | None = None, tracestate: str | None = None
    ) -> RequestRecord:
        """Return the record of a request that has just arrived, which this task works on."""
        record = RequestRecord(front, request_id, traceparent, tracestate, clock=self._clock, began_s=self._clock())
        set_current(record)
        for observer in self._observers:
            _quietly(observer.began, record)
        return record

    def end(self, record: RequestRecord) -> None:
        """Have a record read; its request is over."""
        record.close()
        if record.is_counted:
            for observer in self._observers:
                _quietly(observer.ended, record)


def _quietly(tell: Callable[[RequestRecord], None], record: RequestRecord) -> None:
    try:
        tell(record)
    except Exception:
        logger.exception("request %s could not be observed", record.request_id)
