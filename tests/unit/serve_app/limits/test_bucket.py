from __future__ import annotations

import pytest

from serve_app.limits.bucket import Bucket
from serve_app.limits.headers import duration, limit_headers


def test_a_bucket_gains_its_capacity_in_a_minute_and_no_more() -> None:
    bucket = Bucket(60, 0, at_s=100)
    assert [bucket.refill(100 + s) for s in (0, 1, 30, 60, 90)] == [0, 1, 30, 60, 60]


def test_a_debt_is_paid_by_what_flows_in() -> None:
    bucket = Bucket(60, 10, at_s=0)
    bucket.take(40)
    assert (bucket.level, bucket.wait_s(1)) == (-30, 31)
    assert bucket.refill(31) == 1


def test_a_clock_that_goes_back_gains_nothing() -> None:
    bucket = Bucket(60, 0, at_s=100)
    assert [bucket.refill(s) for s in (50, 101)] == [0, 1]


def test_what_is_put_back_does_not_overflow() -> None:
    bucket = Bucket(60, 59, at_s=0)
    bucket.put(5)
    assert bucket.level == 60


@pytest.mark.parametrize(("capacity", "level"), [(90, 40), (30, 10), (5, 5)], ids=["raised", "lowered", "below"])
def test_what_was_used_of_the_old_limit_stays_used(capacity: float, level: float) -> None:
    bucket = Bucket(60, 10, at_s=0)
    bucket.resize(capacity)
    assert (bucket.capacity, bucket.level) == (capacity, level)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0194, "20ms"), (1, "1s"), (1.2, "2s"), (59.0001, "59s"), (60, "1m0s"), (360, "6m0s"), (3661, "1h1m1s")],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("left", "remaining", "reset"),
    [(60, "60", "0ms"), (59.5, "59", "500ms"), (0, "0", "1m0s"), (-90, "0", "1m0s"), (99, "60", "0ms")],
)
def test_headers_say_limit_remaining_and_reset(left: float, remaining: str, reset: str) -> None:
    assert dict(limit_headers("requests", 60, left)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": remaining,
        "x-ratelimit-reset-requests": reset,
    }
