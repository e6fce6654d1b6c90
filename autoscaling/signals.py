"""Names of the signals that replicas report and policies read, written once; and what keeps a report acceptable to Serve."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from numbers import Real

from serve_app.contracts import EngineLoad

logger = logging.getLogger("ray.serve")

WAITING = "manta_waiting"  # requests queued
RUNNING = "manta_running"  # requests being worked on
SLOTS = "manta_slots"  # requests that one replica works on at a time; 0: unknown
ARRIVED = "manta_arrived"  # requests that have come to this replica since it started: a counter
OPEN = "manta_open"  # HTTP requests open on the replica
KV_CACHE = "manta_kv_cache_usage_ratio"  # 0..1
PREFILL_TOKENS_QUEUED = "manta_prefill_tokens_queued"  # of prompts without an answer's first byte; an estimate
TOKENS_PER_S = "manta_tokens_per_s"  # generated


def engine_signals(load: EngineLoad) -> dict[str, float]:
    """Return an engine's load as the flat numbers that Serve carries to the policy."""
    return {
        **stage_signals(waiting=load.waiting, running=load.running, slots=load.slots, arrived=load.arrived),
        OPEN: float(load.open_requests),
        KV_CACHE: float(load.kv_cache_usage_ratio),
        PREFILL_TOKENS_QUEUED: float(load.prefill_tokens_queued),
        TOKENS_PER_S: float(load.tokens_per_s),
    }


def stage_signals(*, waiting: float, running: float, slots: float, arrived: float) -> dict[str, float]:
    """Return the signals that every stage reports."""
    return {WAITING: float(waiting), RUNNING: float(running), SLOTS: float(slots), ARRIVED: float(arrived)}


class SafeSignals:
    """Reads a stage's signals in a form that Serve takes: finite numbers of at least 0, and never an error.

    Serve checks a replica's first report, and asks that replica for no other when it does not like it.

    Args:
        read: returns the signals as they are now; it must not block.
    """

    def __init__(self, read: Callable[[], Mapping[str, object]]) -> None:
        self._read = read
        self._good: dict[str, float] = {}
        self._told: set[str] = set()

    def __call__(self) -> dict[str, float]:
        """Return the signals. A value that is none stands as it last was, or as 0; nothing can be read: all of them do."""
        try:
            values = dict(self._read())
        except Exception:
            self._tell("the replica's load cannot be read; what it was before stands", exc_info=True)
            return dict(self._good)
        self._good = {name: self._safe(name, value) for name, value in values.items()}
        return dict(self._good)

    def _safe(self, name: str, value: object) -> float:
        number = _number(value)
        if number is None:
            self._tell(f"signal {name} is no number of at least 0; what it was before stands")
            return self._good.get(name, 0.0)
        return number

    def _tell(self, message: str, *, exc_info: bool = False) -> None:
        # Once: this is asked every second, and says nothing new.
        if message not in self._told:
            self._told.add(message)
            logger.warning(message, exc_info=exc_info)


def _number(value: object) -> float | None:
    """Return a finite number of at least 0 as it is, None for anything else."""
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except (ArithmeticError, TypeError, ValueError):  # an integer may be too large
        return None
    return number if math.isfinite(number) and number >= 0 else None
