"""What faults did, as a table for docs/reliability.md: `python -m tests.chaos.table records.jsonl`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.chaos.steady import Effect

HEAD = (
    "| fault | requests per s | requests | failed | broken | sent again | longest stall | detected | recovered | copy back |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


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
    """Return the effects of a file; of a fault that was tried again, the last."""
    found = [Effect(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({effect.fault: effect for effect in found}.values())


if __name__ == "__main__":
    print(table(read(Path(sys.argv[1]))))  # noqa: T201
