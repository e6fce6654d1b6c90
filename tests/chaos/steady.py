"""Steady load beside the tests, and what a fault did to it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from serve_app.cluster import ROOT
from tests.chaos.load import OPEN, TIMEOUT_S, Record

HELD_UP_S = 3.0  # a wait for a byte that is longer than any wait without a fault
SETTLE_S = 3.0


@dataclass
class Effect:
    """What clients saw of a fault.

    Attributes:
        requests: begun from the fault until it was over.
        failed: without a byte of an answer, or ended in silence; ``unrouted`` are those of them that a proxy answered 404.
        broken: told by an error event after their first byte, or by a connection that broke.
        again: needed another connection before their first byte.
        stall_s: the longest wait for a byte.
        detected_s: after the fault, when the last request was begun that failed or was held up.
        recovered_s: after the fault, when the last of those had its answer.
        back_s: after the fault, when as many copies as before were there again.
    """

    fault: str
    requests: int = 0
    rate: float = 0.0
    failed: int = 0
    broken: int = 0
    refused: int = 0
    unrouted: int = 0
    again: int = 0
    stall_s: float = 0.0
    detected_s: float = 0.0
    recovered_s: float = 0.0
    back_s: float = 0.0
    ends: dict[str, int] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)


class SteadyLoad:
    """A load process for the time of the block."""

    def __init__(self, urls: Sequence[str], out: Path, *options: str) -> None:
        self._out = out
        self._read = 0
        self._records: list[Record] = []
        # What starves the platform must not starve those who measure it.
        self._command = ["nice", "-n", "-5", sys.executable, "-m", "tests.chaos.load", "--out", str(out), *options]
        self._command += [word for url in urls for word in ("--url", url)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SteadyLoad:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, cwd=ROOT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=150)

    def is_running(self) -> bool:
        """Whether requests are still sent."""
        return self._process is not None and self._process.poll() is None

    def records(self, since_s: float, until_s: float = float("inf")) -> list[Record]:
        """Return the requests that were begun in this time and have ended."""
        if not self._out.exists():
            return []
        with self._out.open(encoding="utf-8") as lines:
            lines.seek(self._read)
            while line := lines.readline():
                if not line.endswith("\n"):
                    break
                self._records.append(Record(**json.loads(line)))
                self._read = lines.tell()
        return [record for record in self._records if since_s <= record.began_s < until_s]

    def wait_ended(self, before_s: float) -> None:
        """Wait until every request has ended that was begun before then: one that hangs is none that was answered."""
        file = self._out.with_suffix(OPEN)
        wait_until(lambda: float(file.read_text(encoding="utf-8") or 0) > before_s, within_s=TIMEOUT_S + 30)

    def wait_calm(self, *, within_s: float = 120.0) -> None:
        """Wait until nothing failed or was held up for a while."""
        deadline_s = time.monotonic() + within_s
        while True:
            assert self.is_running(), "the load has ended"
            since_s = time.monotonic() - 2 * SETTLE_S
            found = self.records(since_s)
            if len(found) > 20 and not any(_is_hit(record) for record in found):
                return
            assert time.monotonic() < deadline_s, Counter((r.kind, r.end, r.detail) for r in found if _is_hit(r))
            time.sleep(1.0)

    def effect(self, fault: str, *, began_s: float, back_s: float, ended_s: float) -> Effect:
        """Return what clients saw from ``began_s`` on."""
        found = self.records(began_s - 1.0, ended_s)  # those that were open when it happened are hit, too
        found = [record for record in found if record.ended_s >= began_s]
        return effect_of(fault, found, began_s=began_s, back_s=back_s, ended_s=ended_s)


def effect_of(fault: str, found: Iterable[Record], *, began_s: float, back_s: float, ended_s: float) -> Effect:
    """Return what these requests say of a fault."""
    records = list(found)
    hit = [record for record in records if _is_hit(record)]
    ends = Counter(f"{record.kind}:{record.end}" for record in records)
    return Effect(
        fault,
        requests=len(records),
        rate=len(records) / (ended_s - began_s),
        failed=sum(record.end in ("failed", "silent", "left", "unrouted") for record in records),
        broken=sum(record.end in ("broken", "cut") for record in records),
        unrouted=sum(record.end == "unrouted" for record in records),
        refused=sum(record.end == "refused" for record in records),
        again=sum(record.tries > 1 for record in records),
        stall_s=max((_stall_s(record) for record in records), default=0.0),
        detected_s=max((record.began_s - began_s for record in hit), default=0.0),
        recovered_s=max((record.ended_s - began_s for record in hit), default=0.0),
        back_s=back_s - began_s,
        ends=dict(ends),
        details=[
            f"{r.kind} +{r.began_s - began_s:.2f}..{r.ended_s - began_s:.2f} {r.end} {r.status} {r.detail[:160]}" for r in hit
        ][:12],
    )


def _is_hit(record: Record) -> bool:
    return record.end != "ok" or _stall_s(record) > HELD_UP_S


def _stall_s(record: Record) -> float:
    first_s = (record.first_s or record.ended_s) - record.began_s
    return max(first_s, record.gap_s)


def wait_until(condition: Callable[[], bool], *, within_s: float, every_s: float = 0.25) -> float:
    """Return when the condition was first seen to hold, by the monotonic clock."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not so after {within_s} s"
        time.sleep(every_s)
    return time.monotonic()
