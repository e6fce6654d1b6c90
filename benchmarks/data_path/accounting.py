"""What a load costs the processes that serve it: CPU seconds, memory, threads and open files, by role."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Key = tuple[int, int]  # process id and start time: ids come back, pairs do not


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    started: int  # ticks since boot
    cpu_s: float  # its own, user and system
    children_cpu_s: float  # of children that ended and were waited for, with all that those had waited for
    rss_bytes: int
    threads: int

    @property
    def key(self) -> Key:
        """What tells it from a later process with the same id."""
        return (self.pid, self.started)


@dataclass(frozen=True, slots=True)
class Point:
    """The roles at one moment. CPU counts from the first point on and never falls."""

    at: float  # time.monotonic()
    cpu_s: Mapping[str, float]
    rss_bytes: Mapping[str, int]
    threads: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Detail:
    """What is too dear to read at every point."""

    pss_bytes: Mapping[str, int | None]  # None: a process's map was not readable
    fds: Mapping[str, int | None]


NO_DETAIL = Detail({}, {})  # not looked at


@dataclass(frozen=True, slots=True)
class RoleCost:
    """One role over one load. `before` is just ahead of it, `loaded` in its middle (None: not looked at)."""

    cpu_s: float  # inside the measured window
    rss_before_bytes: int
    rss_peak_bytes: int
    rss_after_bytes: int
    pss_before_bytes: int | None
    pss_loaded_bytes: int | None
    pss_after_bytes: int | None
    threads_peak: int
    fds_before: int | None
    fds_loaded: int | None
    fds_after: int | None


def read_processes(proc: Path = Path("/proc")) -> dict[int, Process]:
    """Return the process table. One read a process, as this runs beside the measured programs."""
    found: dict[int, Process] = {}
    for name in os.listdir(proc):
        if name.isdecimal():
            try:
                text = (proc / name / "stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended since the listing
            found[int(name)] = parse_stat(text)
    return found


def parse_stat(text: str) -> Process:
    """Return what one /proc/PID/stat says; a program's name may hold spaces and brackets."""
    head, _, tail = text.rpartition(")")
    field = tail.split()  # field[0] is the third of proc(5), the state
    return Process(
        pid=int(head.split(" ", 1)[0]),
        parent=int(field[1]),
        started=int(field[19]),
        cpu_s=(int(field[11]) + int(field[12])) / TICKS_PER_S,
        children_cpu_s=(int(field[13]) + int(field[14])) / TICKS_PER_S,
        rss_bytes=int(field[21]) * PAGE_BYTES,
        threads=int(field[17]),
    )


def role_of(pid: int, table: Mapping[int, Process], roots: Mapping[int, str]) -> str | None:
    """Return the role of the nearest root among the process and its ancestors."""
    seen: set[int] = set()
    while pid not in seen:
        if pid in roots:
            return roots[pid]
        if pid not in table:
            return None
        seen.add(pid)
        pid = table[pid].parent
    return None


class Ledger:
    """Adds up each role's CPU over many readings of the process table, that of processes that ended included."""

    def __init__(self, roots: Mapping[str, Sequence[int]]) -> None:
        # A process that is named under several roles counts under the last.
        self._roots = {pid: role for role, pids in roots.items() for pid in pids}
        self._roles: dict[Key, str] = {}  # kept: a process whose parent ended is still its role's
        self._last: dict[Key, Process] = {}
        self._first_cpu_s: dict[str, float] | None = None

    def add(self, table: Mapping[int, Process], *, at: float) -> Point:
        """Take one reading in and return the roles at it."""
        living = self._living(table)
        self._last |= {process.key: process for process in living}
        cpu_s = self._cpu_s({process.key for process in living}, table)
        if self._first_cpu_s is None:
            self._first_cpu_s = cpu_s
        rss, threads = dict.fromkeys(cpu_s, 0), dict.fromkeys(cpu_s, 0)
        for process in living:
            role = self._roles[process.key]
            rss[role] += process.rss_bytes
            threads[role] += process.threads
        since = {role: value - self._first_cpu_s.get(role, 0.0) for role, value in cpu_s.items()}
        return Point(at=at, cpu_s=since, rss_bytes=rss, threads=threads)

    def check_roots(self, table: Mapping[int, Process]) -> None:
        """Raise ProcessLookupError where none of a role's roots is running: the role would look free of cost."""
        for role in set(self._roots.values()):
            pids = [pid for pid, named in self._roots.items() if named == role]
            if not any(pid in table for pid in pids):
                raise ProcessLookupError(f"none of the processes {pids} of the role {role!r} is running")

    def pids(self, table: Mapping[int, Process]) -> dict[str, list[int]]:
        """Return the living processes of each role."""
        by_role: dict[str, list[int]] = {role: [] for role in self._roots.values()}
        for process in self._living(table):
            by_role[self._roles[process.key]].append(process.pid)
        return by_role

    def _living(self, table: Mapping[int, Process]) -> list[Process]:
        living = []
        for process in table.values():
            role = role_of(process.pid, table, self._roots)
            if role is not None:
                self._roles[process.key] = role
            if process.key in self._roles:
                living.append(process)
        return living

    def _cpu_s(self, living: set[Key], table: Mapping[int, Process]) -> dict[str, float]:
        """Each process's own CPU, and what its ended children used beyond what was already seen of them."""
        inherited: dict[Key, float] = defaultdict(float)  # by parent: seen of its children that have ended
        for key, process in self._last.items():
            if key not in living:
                inherited[self._key_of(process.parent, table)] += process.cpu_s + process.children_cpu_s
        total = dict.fromkeys(self._roots.values(), 0.0)
        for key, process in self._last.items():
            unseen = max(0.0, process.children_cpu_s - inherited.get(key, 0.0))
            total[self._roles[key]] += process.cpu_s + unseen
        return total

    def _key_of(self, pid: int, table: Mapping[int, Process]) -> Key:
        if pid in table:
            return table[pid].key
        return next((key for key in self._last if key[0] == pid), (pid, 0))


def detail(pids: Mapping[str, Iterable[int]]) -> Detail:
    """Return what the roles' processes hold now."""
    return Detail(
        pss_bytes={role: _sum(pss_bytes(pid) for pid in members) for role, members in pids.items()},
        fds={role: _sum(_fds(pid) for pid in members) for role, members in pids.items()},
    )


def pss_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Return a process's share of the memory it maps: shared pages are divided by who maps them. None: not readable."""
    try:
        text = (proc / str(pid) / "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0 if not psutil.pid_exists(pid) else None
    except PermissionError:
        return None
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), None)
    return int(line.split()[1]) * 1024 if line else None


def _fds(pid: int) -> int | None:
    try:
        return psutil.Process(pid).num_fds()
    except psutil.NoSuchProcess:
        return 0
    except psutil.AccessDenied:
        return None


def _sum(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


class Account:
    """Watches the roles' processes from entering it to leaving it, from a thread of its own.

    With ``detail_after_s`` it looks closer once in the middle, which holds the processes up a little.
    """

    def __init__(
        self, roots: Mapping[str, Sequence[int]], *, detail_after_s: float | None = None, every_s: float = 1.0
    ) -> None:
        self._ledger = Ledger(roots)
        self._detail_after_s = detail_after_s
        self._every_s = every_s
        self._points: list[Point] = []
        self._before: Detail = NO_DETAIL
        self._loaded: Detail = NO_DETAIL
        self._after: Detail = NO_DETAIL
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="accounting", daemon=True)

    def __enter__(self) -> Self:
        """Start watching. Raises ProcessLookupError where no root of a role is running."""
        self._ledger.check_roots(read_processes())
        self._before = detail(self._ledger.pids(self._read()))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._after = detail(self._ledger.pids(self._read()))

    def _watch(self) -> None:
        begun = time.monotonic()
        detail_at = math.inf if self._detail_after_s is None else begun + self._detail_after_s
        while not self._ended.wait(self._every_s):
            table = self._read()
            if time.monotonic() >= detail_at:
                self._loaded, detail_at = detail(self._ledger.pids(table)), math.inf

    def _read(self) -> dict[int, Process]:
        at, table = time.monotonic(), read_processes()
        self._points.append(self._ledger.add(table, at=at))
        return table

    def costs(self, start: float, end: float) -> dict[str, RoleCost]:
        """Return each role's cost; CPU is that between the two moments (of time.monotonic())."""
        first, last = self._points[0], self._points[-1]
        return {
            role: RoleCost(
                cpu_s=cpu_at(self._points, role, end) - cpu_at(self._points, role, start),
                rss_before_bytes=first.rss_bytes[role],
                rss_peak_bytes=max(point.rss_bytes[role] for point in self._points),
                rss_after_bytes=last.rss_bytes[role],
                pss_before_bytes=self._before.pss_bytes.get(role),
                pss_loaded_bytes=self._loaded.pss_bytes.get(role),
                pss_after_bytes=self._after.pss_bytes.get(role),
                threads_peak=max(point.threads[role] for point in self._points),
                fds_before=self._before.fds.get(role),
                fds_loaded=self._loaded.fds.get(role),
                fds_after=self._after.fds.get(role),
            )
            for role in first.cpu_s
        }


def cpu_at(points: Sequence[Point], role: str, at: float) -> float:
    """Return the role's CPU seconds at a moment, on a straight line between the points around it."""
    if at <= points[0].at:
        return points[0].cpu_s[role]
    for earlier, later in pairwise(points):
        if at <= later.at:
            share = (at - earlier.at) / (later.at - earlier.at)
            return earlier.cpu_s[role] + share * (later.cpu_s[role] - earlier.cpu_s[role])
    return points[-1].cpu_s[role]
