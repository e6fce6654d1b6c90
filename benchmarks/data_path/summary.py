"""The figures of a run: medians over rounds, and ratios taken inside each round. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.data_path.accounting import RoleCost
from benchmarks.data_path.records import Failure, Row

ENGINE = "engine"  # the role that every system has behind it
CONTROL = "control"  # what runs beside the requests and costs the same without any; all other roles are the data path
BARE = "bare"
QUARTILES_FROM = 4  # rounds: of fewer, quartiles say nothing that the extremes do not


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the rounds."""

    median: float
    low: float
    high: float
    quartiles: tuple[float, float] | None
    rounds: int


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """Where a figure is: which system, under which load."""

    system: str
    load: str


def spread(values: Sequence[float]) -> Spread:
    """Return the median and how far the rounds lie apart. Raises statistics.StatisticsError on no values."""
    quartiles = None
    if len(values) >= QUARTILES_FROM:
        first, _, third = statistics.quantiles(values, n=4, method="inclusive")
        quartiles = (first, third)
    return Spread(statistics.median(values), min(values), max(values), quartiles, len(values))


def figures(row: Row) -> dict[str, float]:
    """Return the figures of one measurement by name, the unit at the name's end; those that it cannot have are left out."""
    seen = row.measurement
    found = {
        "requests_per_s": seen.requests / seen.seconds,
        "tokens_per_s": seen.tokens_per_s,
        "errors": float(sum(seen.errors.values())),
        "client_cpu_s": seen.client_cpu_s,
    }
    for name, quantiles in (("ttft", seen.ttft_ms), ("itl", seen.itl_ms), ("e2e", seen.e2e_ms)):
        found |= {
            f"{name}_p50_ms": quantiles.p50,
            f"{name}_p95_ms": quantiles.p95,
            f"{name}_p99_ms": quantiles.p99,
            f"{name}_mean_ms": quantiles.mean,
            f"{name}_max_ms": quantiles.max,
        }
    for role, cost in row.costs.items():
        found |= _shared(cost.cpu_s, f" {role}", row)
    if row.costs.keys() - {ENGINE}:  # bare has nothing of its own that could cost
        found |= _own(row)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _own(row: Row) -> dict[str, float]:
    """Return what the system's processes cost together: CPU and growth of its data path, memory and threads of all."""
    own = [cost for role, cost in row.costs.items() if role != ENGINE]
    path = [cost for role, cost in row.costs.items() if role not in {ENGINE, CONTROL}]
    cpu_s = sum(cost.cpu_s for cost in path)
    found = {
        "cpu_cores": cpu_s / row.measurement.seconds,
        "control_cores": (sum(cost.cpu_s for cost in own) - cpu_s) / row.measurement.seconds,
        "rss_mib": sum(cost.rss_peak_bytes for cost in own) / 2**20,
        "threads": float(sum(cost.threads_peak for cost in own)),
    }
    found |= _shared(cpu_s, "", row)
    return found | _per_stream(path, row.load.concurrency) if row.load.concurrency else found


def _shared(cpu_s: float, suffix: str, row: Row) -> dict[str, float]:
    """Return CPU by token and by request; with a suffix, that of one role."""
    found = {}
    if row.measurement.tokens:
        found[f"cpu_per_token_us{suffix}"] = cpu_s * 1e6 / row.measurement.tokens
    if row.measurement.requests:
        found[f"cpu_per_request_us{suffix}"] = cpu_s * 1e6 / row.measurement.requests
    return found


def _per_stream(costs: Sequence[RoleCost], streams: int) -> dict[str, float]:
    """Return how the processes' memory grew, by open stream."""
    found = {"rss_per_stream_kib": sum(cost.rss_peak_bytes - cost.rss_before_bytes for cost in costs) / streams / 1024}
    shares = [(cost.pss_before_bytes, cost.pss_loaded_bytes) for cost in costs]
    growth = [loaded - before for before, loaded in shares if before is not None and loaded is not None]
    if len(growth) == len(shares):
        found["pss_per_stream_kib"] = sum(growth) / streams / 1024
    return found


class Summary:
    """Every figure of a run, and how to compare them."""

    def __init__(self, records: Iterable[Row | Failure]) -> None:
        known = list(records)
        self.failures = [record for record in known if isinstance(record, Failure)]
        rows = [record for record in known if isinstance(record, Row)]
        # (round, cell) -> figures
        self._figures = {(row.round, Cell(row.system, row.load.name)): figures(row) for row in rows}
        self.systems = sorted({row.system for row in rows}, key=lambda name: (name != BARE, name != "manta", name))
        self.loads = sorted({row.load.name for row in rows}, key=_load_order)
        self.rounds = sorted({row.round for row in rows})
        self._add_distance_from_bare()

    def _add_distance_from_bare(self) -> None:
        for (number, cell), found in self._figures.items():
            bare = self._figures.get((number, Cell(BARE, cell.load)), {})
            if cell.system != BARE and "ttft_p50_ms" in found and "ttft_p50_ms" in bare:
                found["added_ttft_p50_ms"] = found["ttft_p50_ms"] - bare["ttft_p50_ms"]

    def of(self, cell: Cell, figure: str) -> Spread | None:
        """Return a figure over the rounds, None where no round has it."""
        values = [found[figure] for (_, where), found in sorted(self._figures.items()) if where == cell and figure in found]
        return spread(values) if values else None

    def ratio(self, figure: str, cell: Cell, other: Cell) -> Spread | None:
        """Return how many times the other cell's figure this one's is, taken within each round."""
        return self._paired(figure, cell, other, compare=lambda mine, theirs: mine / theirs if theirs else math.nan)

    def difference(self, figure: str, cell: Cell, other: Cell) -> Spread | None:
        """Return how far this cell's figure is above the other's, taken within each round."""
        return self._paired(figure, cell, other, compare=lambda mine, theirs: mine - theirs)

    def _paired(self, figure: str, cell: Cell, other: Cell, *, compare: Callable[[float, float], float]) -> Spread | None:
        values = []
        for number in self.rounds:
            mine, theirs = self._round(number, cell).get(figure), self._round(number, other).get(figure)
            if mine is not None and theirs is not None:
                values.append(compare(mine, theirs))
        finite = [value for value in values if math.isfinite(value)]
        return spread(finite) if finite else None

    def _round(self, number: int, cell: Cell) -> Mapping[str, float]:
        return self._figures.get((number, cell), {})

    def roles(self, cell: Cell) -> list[str]:
        """Return the roles that have a CPU figure here, those of the data path first."""
        prefix = "cpu_per_token_us "
        names = {
            name.removeprefix(prefix)
            for (_, where), found in self._figures.items()
            if where == cell
            for name in found
            if name.startswith(prefix)
        }
        return sorted(names, key=lambda role: (role == ENGINE, role == CONTROL, role))

    def total_errors(self, cell: Cell) -> int | None:
        """Return the failed requests of all rounds together, None where nothing was measured."""
        counts = [int(found["errors"]) for (_, where), found in self._figures.items() if where == cell]
        return sum(counts) if counts else None


def _load_order(name: str) -> tuple[int, float]:
    shape, _, value = name.partition("=")
    return ({"c": 0, "rate": 1, "hold": 2}.get(shape, 3), float(value) if value else 0.0)
