"""Writes docs/metrics.md: every metric that serve_app/metrics.py declares, and what to ask of them.

python -m scripts.metrics_docs           rewrite the page
python -m scripts.metrics_docs --check   exit with 1 when the page is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.generated import settle
from serve_app import metrics
from serve_app.metrics import Metric

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
COMMAND = "python -m scripts.metrics_docs"

TEXT = Path(__file__).with_name("metrics_page.md")  # everything but the tables
MARK = "<!-- metrics -->\n"  # where the tables go
NOTE = f"<!-- Written by `{COMMAND}` from scripts/metrics_page.md and serve_app/metrics.py; change those. -->\n"

PARTS = (
    (
        "Requests, by Router",
        "`model` is what the client asked for (a model, an adapter, a pipeline or an embedder), and `none` while nobody knows. "
        "`variant` is the pipeline's version where a pipeline was asked.",
        metrics.ROUTER,
    ),
    ("Retrieval, by Retriever", "", metrics.RETRIEVER),
    (
        "Embedding, by Embedder",
        "`rate(ray_manta_embedded_texts_total[5m]) / rate(ray_manta_embed_seconds_count[5m])` is the mean size of a batch.",
        metrics.EMBEDDER,
    ),
    (
        "The platform, by Rollouts",
        "`deployment` is what scales: `LLM`, `Embedder`, `Retriever` or `Router`; `model` is then an embedder's name, or "
        "empty. Deployments with a fixed number of replicas have no decisions. Rollouts reads the decisions once a second; "
        "[autoscaling.md](autoscaling.md) says what they go by, [rollouts.md](rollouts.md) what rollouts do.",
        metrics.ROLLOUTS,
    ),
    ("Replicas of variants", "", metrics.REPLICA),
)


def page() -> str:
    """Return the whole page."""
    before, after = TEXT.read_text(encoding="utf-8").split(MARK)
    return NOTE + before + "\n".join(_part(*part) for part in PARTS) + after


def _part(title: str, words: str, group: tuple[Metric, ...]) -> str:
    rows = "\n".join(_row(metric) for metric in group)
    said = f"{words}\n\n" if words else ""
    return f"## {title}\n\n{said}| metric | kind | labels | what it is |\n|---|---|---|---|\n{rows}\n"


def _row(metric: Metric) -> str:
    return f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |"


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; return the exit code."""
    return settle(PAGE, page(), command=COMMAND, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
