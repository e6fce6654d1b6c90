from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling import signals
from autoscaling.signals import SafeSignals, engine_signals, stage_signals
from serve_app.contracts import EngineLoad

VALUES = st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(), st.fractions(), st.lists(st.integers()))
READINGS = st.one_of(st.none(), st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES))


class Readings:
    """Gives one reading after the other; None stands for one that fails."""

    def __init__(self, *values: Mapping[str, object] | None) -> None:
        self._values = list(values)

    def __call__(self) -> Mapping[str, object]:
        if (values := self._values.pop(0)) is None:
            raise RuntimeError("no load")
        return values


@settings(deadline=None)
@given(st.lists(READINGS, min_size=1, max_size=8))
def test_whatever_is_read_serve_gets_finite_numbers_of_at_least_0(readings: list[Mapping[str, object] | None]) -> None:
    safe = SafeSignals(Readings(*readings))
    for _ in readings:
        found = safe()
        assert type(found) is dict
        assert all(type(name) is str and type(value) is float for name, value in found.items())
        assert all(math.isfinite(value) and value >= 0 for value in found.values())


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.floats(0, allow_infinity=False)))
def test_good_values_are_passed_on_as_they_are(values: dict[str, float]) -> None:
    assert SafeSignals(Readings(values))() == values


BAD: list[Any] = [math.nan, math.inf, -math.inf, -1, None, "7", [1], Decimal(1), 10**400]


@pytest.mark.parametrize("bad", BAD, ids=["nan", "inf", "minus-inf", "negative", "null", "text", "list", "decimal", "huge"])
def test_a_bad_value_stands_as_it_last_was_or_as_0(bad: object) -> None:
    safe = SafeSignals(Readings({"a": bad, "b": 1}, {"a": 5, "b": 2}, {"a": bad, "b": 3}, {"a": 6, "b": 4}))
    assert [safe() for _ in range(4)] == [{"a": 0, "b": 1}, {"a": 5, "b": 2}, {"a": 5, "b": 3}, {"a": 6, "b": 4}]


def test_a_load_that_cannot_be_read_stands_as_it_last_was_and_nothing_is_made_up_before() -> None:
    safe = SafeSignals(Readings(None, {"a": 5}, None, {"a": 6}))
    assert [safe() for _ in range(4)] == [{}, {"a": 5}, {"a": 5}, {"a": 6}]


def test_what_is_wrong_is_logged_once_for_each_signal(caplog: pytest.LogCaptureFixture) -> None:
    safe = SafeSignals(Readings(None, *[{"a": math.nan, "b": -1, "c": 1}] * 3, None))
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        for _ in range(5):
            safe()
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "the replica's load cannot be read",
        "signal a is no number of at least 0",
        "signal b is no number of at least 0",
    ]
    assert "RuntimeError: no load" in caplog.text


def test_changing_a_report_changes_no_later_one() -> None:
    safe = SafeSignals(Readings({"a": 1}, None))
    safe()["a"] = math.nan
    assert safe() == {"a": 1}


def test_an_engine_reports_everything_that_a_policy_may_ask_for() -> None:
    load = EngineLoad(1, 2, 0.5, open_requests=4, slots=8, arrived=9, prefill_tokens_queued=100, tokens_per_s=12.5)
    assert engine_signals(load) == {
        "manta_waiting": 1.0,
        "manta_running": 2.0,
        "manta_slots": 8.0,
        "manta_arrived": 9.0,
        "manta_open": 4.0,
        "manta_kv_cache_usage_ratio": 0.5,
        "manta_prefill_tokens_queued": 100.0,
        "manta_tokens_per_s": 12.5,
    }


def test_every_name_is_a_signal_of_an_engine() -> None:
    names = {value for name, value in vars(signals).items() if name.isupper() and isinstance(value, str)}
    assert names == set(engine_signals(EngineLoad()))


def test_any_stage_reports_what_queue_depth_goes_by() -> None:
    assert stage_signals(waiting=1, running=0.5, slots=2, arrived=3) == {
        "manta_waiting": 1.0,
        "manta_running": 0.5,
        "manta_slots": 2.0,
        "manta_arrived": 3.0,
    }
