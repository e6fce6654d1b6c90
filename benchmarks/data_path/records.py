"""The raw results: one JSON line for each thing that happened, so that a run that is killed loses nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from benchmarks.data_path.accounting import RoleCost
from benchmarks.data_path.contracts import FakeSpec, Load, Measurement

Pair = tuple[int, str]  # a round and a system


def now() -> str:
    """Return the date and time of a record."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Run:
    """A start of the runner: with what, and on which machine."""

    engine: Literal["fake", "vllm"]
    settings: Mapping[str, object]  # what has to be equal for results to belong together
    machine: Mapping[str, object]
    date: str = field(default_factory=now)
    kind: Literal["run"] = "run"


@dataclass(frozen=True, slots=True)
class Begin:
    """A system's turn in a round. What an earlier turn of the same pair left is void."""

    round: int
    system: str
    date: str = field(default_factory=now)
    kind: Literal["begin"] = "begin"


@dataclass(frozen=True, slots=True)
class Row:
    """One load on one system, measured."""

    round: int
    system: str
    load: Load
    spec: FakeSpec | None
    measurement: Measurement
    costs: Mapping[str, RoleCost]
    load_average: Sequence[float]  # of the machine, just before
    date: str = field(default_factory=now)
    kind: Literal["measurement"] = "measurement"


@dataclass(frozen=True, slots=True)
class Failure:
    """A system that did not start, did not end, or did not survive a load."""

    round: int
    system: str
    stage: Literal["start", "load", "end"]
    load: str | None
    text: str
    date: str = field(default_factory=now)
    kind: Literal["failure"] = "failure"


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a system's turn."""

    round: int
    system: str
    is_clean: bool  # no failure in it
    date: str = field(default_factory=now)
    kind: Literal["done"] = "done"


Record = Run | Begin | Row | Failure | Done
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


class RawFile:
    """Appends records, and reads them back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Record) -> None:
        """Write one line, down to the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            if file.tell() and not _ends_a_line(file.fileno(), file.tell()):
                file.write(b"\n")  # a kill cut the line before
            file.write(json.dumps(asdict(record)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Record]:
        """Return every record, oldest first, without lines that a kill cut."""
        if not self.path.exists():
            return []
        records = []
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            try:
                records.append(_RECORD.validate_json(line))
            except ValidationError as err:
                if any(error["type"] != "json_invalid" for error in err.errors()):
                    raise ValueError(f"{self.path}, line {number} is no record of this benchmark: {err}") from err
        return records


def _ends_a_line(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"


def valid(records: Iterable[Record]) -> list[Row | Failure]:
    """Return what was measured and what failed, of the latest turn of each pair only."""
    turns: dict[Pair, list[Row | Failure]] = {}
    for record in records:
        if isinstance(record, Begin):
            turns[record.round, record.system] = []
        elif isinstance(record, Row | Failure):
            turns.setdefault((record.round, record.system), []).append(record)
    return [record for turn in turns.values() for record in turn]


def finished(records: Iterable[Record]) -> set[Pair]:
    """Return the pairs whose latest turn came to its end without a failure."""
    pairs: set[Pair] = set()
    for record in records:
        if isinstance(record, Begin):
            pairs.discard((record.round, record.system))
        elif isinstance(record, Done) and record.is_clean:
            pairs.add((record.round, record.system))
    return pairs
