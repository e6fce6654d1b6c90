"""An hour of faults: what they may do to requests, and what the processes of a cluster hold meanwhile."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import httpx
import psutil

from tests.chaos.cluster import ChaosCluster
from tests.chaos.load import Record
from tests.chaos.processes import command_line

EVERY_S = 10.0
AFTER_S = 30.0  # a fault is felt for so long
KINDS_OF_PROCESS = {
    "gcs_server": "GCS",
    "raylet/raylet": "raylet",
    "HAProxyManager": "proxy manager",
    "haproxy -": "HAProxy",
    "ServeController": "Serve controller",
    "llm.chat.stable": "LLM replica",
    "router:Router": "Router",
    "retriever:Retriever": "Retriever",
    "embedder.minilm": "Embedder",
    "rollouts:Rollouts": "Rollouts",
    "dashboard/agent.py": "Ray's agent",
    "dashboard/dashboard.py": "Ray's dashboard",
    "serve_app.watchdog": "watchdog",
}
# Beyond this, what a process holds at the end has grown since its start: (share, and so much more).
# Of descriptors most are connections that are kept for the next request: a replica that waited long for one has many.
ALLOWED = {"rss_mib": (0.10, 10.0), "fds": (0.25, 20.0), "threads": (0.0, 5.0)}
ALLOWED_IN_ALL = {"actors": 2.0, "shm_mib": 32.0}


@dataclass(frozen=True)
class Happened:
    """A fault: when it began and was over, which ends of requests it explains, and when its copies and the calm were back."""

    fault: str
    began_s: float
    ended_s: float
    explains: frozenset[str]
    back_s: float = 0.0
    calm_s: float = 0.0

    def covers(self, record: Record) -> bool:
        """Whether the request may have ended as it did because of this fault."""
        is_near = record.ended_s >= self.began_s and record.began_s <= self.ended_s + AFTER_S
        return is_near and record.end in self.explains


def unexplained(records: Iterable[Record], faults: Sequence[Happened]) -> list[Record]:
    """Return the requests that went wrong and should not have."""
    return [each for each in records if each.end != "ok" and not any(fault.covers(each) for fault in faults)]


@dataclass
class Samples:
    """What was held over time.

    Attributes:
        held: for each kind of process and each resource, one value per sample: the mean of its processes.
        in_all: for each resource of the cluster, one value per sample.
    """

    held: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    in_all: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def take(self, cluster: ChaosCluster) -> None:
        """Take one sample."""
        found: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
        for process in cluster.find(""):
            with contextlib.suppress(psutil.Error):
                sizes = (process.memory_info().rss / 2**20, process.num_fds(), process.num_threads())
                found[kind_of(command_line(process))].append(sizes)
        for kind, each in found.items():
            for name, values in zip(ALLOWED, zip(*each, strict=True), strict=True):
                self.held[kind][name].append(statistics.fmean(values))
        self.in_all["processes"].append(sum(map(len, found.values())))
        self.in_all["shm_mib"].append(shutil.disk_usage("/dev/shm").used / 2**20)
        with contextlib.suppress(httpx.HTTPError):
            self.in_all["actors"].append(cluster.actors())

    def grown(self) -> list[str]:
        """Return what has grown by more than it may, in words."""
        told = []
        for kind, resources in self.held.items():
            for name, values in resources.items():
                share, more = ALLOWED[name]
                early, late = early_and_late(values)
                if late > early * (1 + share) + more:
                    told.append(f"{kind}: {name} {early:.1f} -> {late:.1f}")
        for name, more in ALLOWED_IN_ALL.items():
            early, late = early_and_late(self.in_all[name])
            if late > early + more:
                told.append(f"{name} {early:.1f} -> {late:.1f}")
        return told

    def table(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Return what was held early and late, by kind of process."""
        held: Mapping[str, Mapping[str, list[float]]] = {**self.held, "in all": self.in_all}
        return {kind: {name: early_and_late(values) for name, values in each.items()} for kind, each in held.items()}


def early_and_late(values: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the second fifth (the first is for warming up) and of the last."""
    fifth = max(1, len(values) // 5)
    return statistics.median(values[fifth : 2 * fifth] or values), statistics.median(values[-fifth:])


def kind_of(title: str) -> str:
    """Return what a process is."""
    return next((kind for mark, kind in KINDS_OF_PROCESS.items() if mark in title), "other")


@contextlib.contextmanager
def sampled(cluster: ChaosCluster) -> Iterator[Samples]:
    """Take samples, by a thread, during the block."""
    samples, over = Samples(), threading.Event()

    def take() -> None:
        while not over.wait(EVERY_S):
            samples.take(cluster)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def happened(fault: str, act: Callable[[], object], *, explains: Iterable[str] = ()) -> Happened:
    """Let a fault happen."""
    began_s = time.monotonic()
    act()
    return Happened(fault, began_s, time.monotonic(), frozenset(explains))


def ends(records: Iterable[Record]) -> dict[str, int]:
    """Return how many requests ended how."""
    return dict(Counter(record.end for record in records))
