"""How soon the gates of a rollout find a bad canary, and how often they take a good one for bad; a simulation.

    python -m benchmarks.canary_detection                              # 200 runs of every cell, as a table; ten minutes
    python -m benchmarks.canary_detection --runs 1000 --rates 50       # only one load, with rarer percentiles
    python -m benchmarks.canary_detection --seed 2 --out canary.json   # other chance, and all numbers as JSON

The canary has 5 % of Poisson traffic for ten minutes and is looked at once a second. Its fault is there from the start.
TTFT is lognormal (median 0.3 s), so is a stream's mean ITL (median 0.03 s, sigma 0.2), a stream has 128 tokens, 0.2 % of
all requests fail, and what hangs times out after 60 s. Limits of the model: requests are independent, so neither queues nor
caches make slow ones come together; a baseline's load does not change; reports are never late; and the runs of a cell share
ten traces of a baseline. Independent requests flatter every gate.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.canary_detection.study import RATES, Cell, document, study

HEADER = (
    "| fault | req/s | TTFT sigma | rolled back | found after p50 / p90 / p99 (s) | by | may go on | waits | first may (s) |\n"
    "|---|--:|--:|--:|--:|---|--:|--:|--:|\n"
)


def row(cell: Cell) -> str:
    """Return a cell as a line of the table."""
    times = " / ".join("-" if each is None else f"{each:.0f}" for each in (cell.p50_s, cell.p90_s, cell.p99_s))
    blamed = max(cell.blamed, key=lambda gate: cell.blamed[gate], default="-")
    promoted = "-" if cell.first_promoted_s is None else f"{cell.first_promoted_s:.0f}"
    shares = (f"{100 * share:.1f} %" for share in (cell.rolled_back, cell.promoted, cell.waiting))
    rolled_back, going_on, waiting = shares
    load = f"{cell.fault} | {cell.rate_per_s:g} | {cell.sigma:g}"
    return f"| {load} | {rolled_back} | {times} | {blamed} | {going_on} | {waiting} | {promoted} |\n"


def main() -> None:
    """Print the table, row by row, and write the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canary_detection", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="requests a second")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    sys.stdout.write(f"{args.runs} runs of each cell, seed {args.seed}, 5 % of the traffic, 600 s\n\n{HEADER}")

    def tell(cell: Cell) -> None:
        sys.stdout.write(row(cell))
        sys.stdout.flush()

    cells = study(args.runs, args.seed, rates=args.rates, tell=tell)
    if args.out is not None:
        args.out.write_text(json.dumps(document(cells, runs=args.runs, seed=args.seed), indent=2) + "\n")


if __name__ == "__main__":
    main()
