"""Observation: what is known of one deployment at one moment, and what is decided on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Observation:
    """Load of one deployment, summed over its replicas. A request is counted in one place only."""

    now_s: float  # of any clock that never goes back
    target: int  # replicas asked for, those that are still starting included
    ready: int  # replicas that serve
    waiting: float = 0.0  # requests in the queues of replicas
    held: float = 0.0  # requests that wait in Routers because no replica may take them
    running: float = 0.0  # requests being worked on
    arrived: float = 0.0  # requests that have arrived since some moment long ago, held ones included
    slots: float = 0.0  # requests that one replica works on at a time; 0: unknown
    kv_cache_usage: float = 0.0  # mean of the replicas, 0..1

    @property
    def queue(self) -> float:
        """Queue depth: requests that wait, wherever they do."""
        return self.waiting + self.held

    @property
    def open(self) -> float:
        """Requests that have arrived and are not answered."""
        return self.queue + self.running


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas there should be, and why, in a few words for people."""

    replicas: int
    reason: str
