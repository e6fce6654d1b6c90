from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.schedule import schedule
from tests.unit.loadtests.fakes import scenario

HERE = Path()


def at(shape: dict[str, Any], **fields: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    asked = scenario(load={"mode": "open", "shape": shape}, **fields)
    return schedule(asked, folder=HERE).at_s


def test_the_same_seed_gives_the_same_schedule() -> None:
    shape = {"kind": "constant", "level": 20}
    assert (at(shape, seed=4) == at(shape, seed=4)).all()
    assert len(at(shape, seed=4)) != len(at(shape, seed=5))


def test_arrivals_begin_with_the_warm_up_and_end_with_the_duration() -> None:
    times = at({"kind": "constant", "level": 50}, warmup=5, duration=20)
    assert -5 < times[0] < -4.5
    assert 19.5 < times[-1] < 20
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize("cv", [pytest.param(0.0, id="even"), pytest.param(1.0, id="poisson"), pytest.param(3.0, id="bursts")])
def test_times_between_requests_vary_as_asked_for(cv: float) -> None:
    gaps = np.diff(at({"kind": "constant", "level": 50, "cv": cv}, duration=400))
    assert gaps.mean() == pytest.approx(0.02, rel=0.1)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1, abs=1e-6)


def test_a_spike_brings_as_many_more_as_it_says() -> None:
    shape = {"kind": "spike", "level": 10, "peak": 100, "spike_at": 0.5, "spike_for": 0.1}
    times = at(shape, duration=400)
    within = ((times >= 200) & (times < 240)).sum()
    assert within == pytest.approx(4000, rel=0.06)
    assert len(times) - within == pytest.approx(3600, rel=0.06)


def test_too_many_requests_are_refused_before_they_are_made() -> None:
    with pytest.raises(ValueError, match="at most 5,000,000 are planned"):
        at({"kind": "constant", "level": 100_000}, duration=3600)


def test_a_trace_gives_times_and_lengths(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n1,10,20\n4,30,40\n50,1,1\n")
    asked = scenario(load={"mode": "open", "shape": {"kind": "replay", "trace": "t.csv", "speed": 2}}, warmup=1)
    made = schedule(asked, folder=tmp_path)
    assert made.prompt_tokens is not None
    assert made.output_tokens is not None
    assert [made.at_s.tolist(), made.prompt_tokens.tolist(), made.output_tokens.tolist()] == [[-0.5, 1.0], [10, 30], [20, 40]]
    assert len(made) == 2
