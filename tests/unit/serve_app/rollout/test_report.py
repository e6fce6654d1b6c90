from __future__ import annotations

import json
from collections import Counter

import pytest

from serve_app.rollout.gathering import Gathering
from serve_app.rollout.histogram import Histogram
from serve_app.rollout.plan import Declared
from serve_app.rollout.report import shadow_report, stats_report
from serve_app.rollout.table import Share, Split
from serve_app.rollout.telemetry import Outcome, RouterReport, ShadowStats, VariantStats, Waiting

DECLARED = {
    "chat": Declared(Split(name="chat", shares=(Share(variant="stable", weight=100),), baseline="stable"), {"stable": "s"})
}
KEY = ("chat", "stable")
NOTHING = {
    "requests": 0,
    "outcomes": {},
    "finish_reasons": {},
    "tokens": 0,
    "error_rate": None,
    "ttft_s": {"p50": None, "p95": None, "p99": None},
    "itl_s": {"p50": None, "p95": None, "p99": None},
    "e2e_s": {"p50": None, "p95": None, "p99": None},
}


def durations(*seconds: float) -> Histogram:
    made = Histogram()
    for each in seconds:
        made.observe(each)
    return made


def gathering() -> Gathering:
    stats = VariantStats(
        outcomes=Counter({Outcome.OK: 3, Outcome.TIMEOUT: 1, Outcome.REJECTED: 2}),
        finish_reasons=Counter(stop=2, length=1),
        tokens=40,
        ttft=durations(*[0.1] * 99, 1.0),
    )
    shadow = ShadowStats(5, Counter(busy=2), Counter(timeout=1), 4, 3, 3.5, durations(0.2), Histogram())
    made = Gathering()
    made.take(RouterReport("r", 1, 1, {KEY: stats}, {KEY: Waiting(whole=durations(1.0, 2.0))}, {KEY: shadow}), now_s=0.0)
    made.tick(now_s=0.0)
    return made


def test_a_variant_without_requests_has_no_rates() -> None:
    assert stats_report(Gathering(), DECLARED, now_s=0.0) == [
        {"name": "chat", "variant": "stable", "last_minute": NOTHING, "total": NOTHING, "open": 0}
    ]


def test_a_variants_counts_are_told() -> None:
    [made] = stats_report(gathering(), DECLARED, now_s=1.0)
    told = {key: made["total"][key] for key in ("requests", "outcomes", "finish_reasons", "tokens", "error_rate")}
    assert told == {
        "requests": 6,
        "outcomes": {"ok": 3, "rejected": 2, "timeout": 1},
        "finish_reasons": {"length": 1, "stop": 2},
        "tokens": 40,
        "error_rate": 0.25,
    }
    assert (made["open"], made["last_minute"]) == (2, made["total"])


def test_quantiles_are_at_most_one_bucket_over_what_was_seen() -> None:
    [made] = stats_report(gathering(), DECLARED, now_s=1.0)
    ttft = made["total"]["ttft_s"]
    assert [0.1 <= ttft[name] <= 0.105 for name in ("p50", "p95", "p99")] == [True] * 3


def test_a_minute_later_only_the_total_is_left() -> None:
    [made] = stats_report(gathering(), DECLARED, now_s=61.0)
    assert (made["last_minute"], made["total"]["requests"]) == (NOTHING, 6)


def test_copies_are_told_by_variant() -> None:
    [made] = shadow_report(gathering())
    quantiles = {key: made.pop(key) for key in ("later_s", "earlier_s")}
    assert made == {
        "name": "chat",
        "variant": "stable",
        "copied": 5,
        "dropped": {"busy": 2},
        "failed": {"timeout": 1},
        "compared": 4,
        "agreement_ratio": 0.75,
        "mean_similarity": 0.875,
    }
    assert quantiles["later_s"]["p50"] == pytest.approx(0.2, rel=0.05)
    assert quantiles["earlier_s"] == {"p50": None, "p95": None, "p99": None}


def test_copies_that_nobody_compared_agree_in_nothing() -> None:
    made = Gathering()
    made.shadows[KEY] = ShadowStats(copied=1)
    [told] = shadow_report(made)
    assert (told["agreement_ratio"], told["mean_similarity"]) == (None, None)


def test_a_report_is_plain_json() -> None:
    made = gathering()
    assert json.loads(json.dumps([stats_report(made, DECLARED, now_s=1.0), shadow_report(made)], allow_nan=False))
