"""What was counted for each variant, as JSON for operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serve_app.rollout.gathering import LONG_S, Gathering
from serve_app.rollout.histogram import Histogram
from serve_app.rollout.plan import Declared
from serve_app.rollout.telemetry import ShadowStats, VariantStats


def stats_report(gathering: Gathering, declared: Mapping[str, Declared], *, now_s: float) -> list[dict[str, Any]]:
    """Return what each variant did in the last minute, and in all since Rollouts began."""
    keys = [(name, variant) for name, each in declared.items() for variant in each.split.weights]
    return [
        {
            "name": name,
            "variant": variant,
            "last_minute": _stats(gathering.window((name, variant), last_s=LONG_S, now_s=now_s)),
            "total": _stats(gathering.total((name, variant))),
            "open": gathering.waiting((name, variant)).whole.total,
        }
        for name, variant in keys
    ]


def shadow_report(gathering: Gathering) -> list[dict[str, Any]]:
    """Return what became of copies, by model and the variant that got them."""
    return [
        {"name": name, "variant": variant, **_shadow(stats)} for (name, variant), stats in sorted(gathering.shadows.items())
    ]


def _stats(stats: VariantStats) -> dict[str, Any]:
    return {
        "requests": sum(stats.outcomes.values()),
        "outcomes": {outcome.value: count for outcome, count in sorted(stats.outcomes.items())},
        "finish_reasons": dict(sorted(stats.finish_reasons.items())),
        "tokens": stats.tokens,
        "error_rate": stats.failures / stats.judged if stats.judged else None,
        "ttft_s": _quantiles(stats.ttft),
        "itl_s": _quantiles(stats.itl),
        "e2e_s": _quantiles(stats.e2e),
    }


def _quantiles(histogram: Histogram) -> dict[str, float | None]:
    return {f"p{round(100 * q)}": histogram.quantile(q) for q in (0.5, 0.95, 0.99)}


def _shadow(stats: ShadowStats) -> dict[str, Any]:
    return {
        "copied": stats.copied,
        "dropped": dict(sorted(stats.dropped.items())),
        "failed": dict(sorted(stats.failed.items())),
        "compared": stats.compared,
        "agreement_ratio": stats.agreed / stats.compared if stats.compared else None,
        "mean_similarity": stats.similarity_sum / stats.compared if stats.compared else None,
        "later_s": _quantiles(stats.slower),
        "earlier_s": _quantiles(stats.faster),
    }
