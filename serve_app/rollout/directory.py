"""Directory: who can serve what right now. Pure state; the clock is an argument."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from serve_app.contracts import ReplicaEntry, ReplicaState

LOST_AFTER = 2  # times-to-live after its entry expired that a replica which says nothing is given up


@dataclass(slots=True)
class _Line:
    entry: ReplicaEntry
    seen_s: float
    seq: int


class Directory:
    """Entries by replica id, each kept alive by heartbeats and forgotten ``ttl_s`` seconds after the last.

    ``version`` grows with every change a Router would want to see, load changes included.
    """

    def __init__(self, *, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._lines: dict[str, _Line] = {}
        self._gone: dict[str, float] = {}
        self._silent: dict[str, tuple[_Line, float]] = {}  # expired, and since when; it may speak again
        self._losses: Counter[tuple[str, str, str]] = Counter()
        self.version = 0

    def heartbeat(self, entry: ReplicaEntry, *, seq: int, now_s: float) -> None:
        """Add or refresh an entry. Late news (an older ``seq``, or of a replica that said goodbye) is dropped.

        A replica that drains never takes new work again, whatever a heartbeat that was on its way still says.
        """
        self._silent.pop(entry.replica_id, None)
        line = self._lines.get(entry.replica_id)
        if entry.replica_id in self._gone or (line is not None and seq <= line.seq):
            return
        if line is not None and line.entry.state is ReplicaState.DRAINING:
            entry = replace(entry, state=ReplicaState.DRAINING)
        if line is None or line.entry != entry:
            self.version += 1
        self._lines[entry.replica_id] = _Line(entry, now_s, seq)

    def remove(self, replica_id: str, *, now_s: float) -> None:
        """Forget a replica that stopped; a heartbeat still on its way does not bring it back."""
        self._gone[replica_id] = now_s
        if (line := self._lines.pop(replica_id, None)) is not None:
            self.version += 1
            self._losses[_key(line.entry)] += line.entry.state is ReplicaState.STARTING

    def drain(self, replica_id: str) -> None:
        """Mark a replica as draining: Routers send it nothing new."""
        line = self._lines.get(replica_id)
        if line is not None and line.entry.state is not ReplicaState.DRAINING:
            line.entry = replace(line.entry, state=ReplicaState.DRAINING)
            self.version += 1

    def expire(self, *, now_s: float) -> None:
        """Forget replicas whose last heartbeat is older than the time-to-live."""
        for replica_id in [k for k, line in self._lines.items() if now_s - line.seen_s > self._ttl_s]:
            line = self._lines.pop(replica_id)
            self.version += 1
            if line.entry.state is not ReplicaState.DRAINING:
                self._silent[replica_id] = (line, now_s)
        for replica_id in [k for k, (_, since_s) in self._silent.items() if now_s - since_s > LOST_AFTER * self._ttl_s]:
            self._losses[_key(self._silent.pop(replica_id)[0].entry)] += 1
        self._gone = {k: at_s for k, at_s in self._gone.items() if now_s - at_s <= 10 * self._ttl_s}

    def excuse(self, seconds: float, *, now_s: float) -> None:
        """Do not count a time in which nobody could be heard."""
        for line in self._lines.values():
            line.seen_s = min(now_s, line.seen_s + seconds)

    def ready(self, model: str, variant: str, revision: str) -> int:
        """Return how many replicas of a variant are ready that are made of this."""
        entries = (line.entry for line in self._lines.values())
        return sum(_key(entry) == (model, variant, revision) and entry.state is ReplicaState.READY for entry in entries)

    def losses(self, model: str, variant: str, revision: str) -> int:
        """Return how many such replicas fell silent for good, or gave up before they were ready, since the beginning."""
        return self._losses[model, variant, revision]

    def entries(self) -> tuple[ReplicaEntry, ...]:
        """All entries, ordered by replica id."""
        return tuple(self._lines[k].entry for k in sorted(self._lines))


def _key(entry: ReplicaEntry) -> tuple[str, str, str]:
    return entry.model, entry.variant, entry.revision
