"""What faults did, as a table for docs/reliability.md: `python -m tests.chaos.table records.jsonl`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.chaos.steady import Effect

HEAD = (
    "| fault | requests per s | requests | failed | broken | sent again | longest stall | detected | recovered | copy back |",
    "|---|---|---|---|---|---|---|---|---|---|",
)
COUNTS = ("requests", "failed", "broken", "refused", "unrouted", "again")
TIMES = ("stall_s", "detected_s", "recovered_s", "back_s")


def table(effects: Iterable[Effect]) -> str:
    """Return the rows in Markdown; times in seconds."""
    return "\n".join([*HEAD, *(_row(effect) for effect in effects)])


def _row(effect: Effect) -> str:
    cells = (
        effect.fault,
        f"{effect.rate:.0f}",
        f"{effect.requests:,}",
        effect.failed,
        effect.broken,
        effect.again,
        f"{effect.stall_s:.1f} s",
        f"{max(0.0, effect.detected_s):.1f} s",
        f"{max(0.0, effect.recovered_s):.1f} s",
        f"{effect.back_s:.0f} s" if effect.back_s else "-",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def read(path: Path) -> list[Effect]:
    """Return the effects of a file; those of a fault that came more than once as one."""
    found = [Effect(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    names = dict.fromkeys(effect.fault for effect in found)
    return [merged([effect for effect in found if effect.fault == name]) for name in names]


def merged(same: Sequence[Effect]) -> Effect:
    """Return what the same fault did in all: numbers added up, the longest times."""
    seconds = sum(effect.requests / effect.rate for effect in same)
    counts = {name: sum(getattr(effect, name) for effect in same) for name in COUNTS}
    times = {name: max(getattr(effect, name) for effect in same) for name in TIMES}
    fault = same[0].fault + (f", {len(same)} times" if len(same) > 1 else "")
    return Effect(fault, rate=counts["requests"] / seconds, **counts, **times)


if __name__ == "__main__":
    print(table(read(Path(sys.argv[1]))))  # noqa: T201
