from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from autoscaling.simulation.trace import CODE, CONVERSATION, Draw, LengthModel, Trace, bursty, diurnal, poisson, spike, step
from autoscaling.simulation.trace_names import RECIPES, by_name


def trace(
    arrivals_s: list[float], *, prompts: list[int] | None = None, outputs: list[int] | None = None, duration_s: float = 10.0
) -> Trace:
    ones = [1] * len(arrivals_s)
    of_prompts = np.array(ones if prompts is None else prompts, dtype=np.int64)
    of_outputs = np.array(ones if outputs is None else outputs, dtype=np.int64)
    return Trace("made", np.array(arrivals_s, dtype=np.float64), of_prompts, of_outputs, duration_s)


def count(of: Trace, from_s: float, until_s: float) -> int:
    return int(((of.arrivals_s >= from_s) & (of.arrivals_s < until_s)).sum())


def is_about(got: float, expected: float) -> bool:
    """Within four standard deviations of a Poisson count: a seed that fails means a wrong rate."""
    return abs(got - expected) < 4 * math.sqrt(expected)


def test_a_trace_knows_its_size_and_rate() -> None:
    made = trace([0.0, 1.0, 1.0, 9.0])
    assert len(made) == 4
    assert made.rate == 0.4


def test_a_trace_may_be_empty() -> None:
    assert trace([]).rate == 0.0


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        pytest.param({"arrivals_s": [2.0, 1.0]}, "must be finite and sorted", id="unsorted"),
        pytest.param({"arrivals_s": [math.nan]}, "must be finite and sorted", id="not-a-number"),
        pytest.param({"arrivals_s": [-1.0]}, "arrivals_s must be 0 or more", id="before-the-begin"),
        pytest.param({"arrivals_s": [11.0]}, "arrivals_s must be at most duration_s, 10; got 11", id="after-the-end"),
        pytest.param({"arrivals_s": [1.0], "prompts": [0]}, "prompt_tokens must be at least 1", id="empty-prompt"),
        pytest.param({"arrivals_s": [1.0], "outputs": [0]}, "output_tokens must be at least 1", id="empty-answer"),
        pytest.param({"arrivals_s": [1.0], "outputs": [1, 2]}, "flat arrays of one length", id="lengths-differ"),
        pytest.param({"arrivals_s": [], "duration_s": 0.0}, "duration_s must be a positive number; got 0", id="no-time"),
        pytest.param({"arrivals_s": [], "duration_s": math.inf}, "duration_s must be a positive number", id="endless"),
    ],
)
def test_a_trace_that_cannot_be_is_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        trace(**fields)  # type: ignore[arg-type]


def test_a_cut_trace_has_the_requests_of_its_time() -> None:
    short = trace([0.0, 1.0, 2.0, 3.0], prompts=[5, 6, 7, 8]).cut(2.0)
    assert short.arrivals_s.tolist() == [0.0, 1.0, 2.0]
    assert short.prompt_tokens.tolist() == [5, 6, 7]
    assert short.duration_s == 2.0


def test_a_trace_that_is_shorter_is_not_cut() -> None:
    whole = trace([1.0])
    assert whole.cut(10.0) is whole


def test_another_rate_stretches_time_and_keeps_the_requests() -> None:
    slow = trace([0.0, 1.0, 10.0], prompts=[5, 6, 7]).at_rate(0.1)
    assert slow.arrivals_s.tolist() == pytest.approx([0.0, 3.0, 30.0])
    assert slow.prompt_tokens.tolist() == [5, 6, 7]
    assert slow.rate == pytest.approx(0.1)


def test_another_rate_must_be_positive() -> None:
    with pytest.raises(ValueError, match="rate must be a positive number"):
        trace([1.0]).at_rate(0.0)


def test_poisson_has_its_rate_and_no_memory() -> None:
    made = poisson(5.0, 4000.0)
    gaps = np.diff(made.arrivals_s)
    assert is_about(len(made), 20_000)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.03)


def test_a_step_raises_the_rate_for_good() -> None:
    made = step(2.0, 2000.0, 1000.0, factor=10.0)
    assert made.name == "step"
    assert is_about(count(made, 0, 1000), 2_000)
    assert is_about(count(made, 1000, 2000), 20_000)


def test_a_step_may_lower_the_rate() -> None:
    made = step(20.0, 2000.0, 1000.0, factor=0.1)
    assert is_about(count(made, 0, 1000), 20_000)
    assert is_about(count(made, 1000, 2000), 2_000)


def test_a_spike_ends() -> None:
    made = spike(2.0, 3000.0, (1000.0, 1500.0), factor=8.0)
    assert is_about(count(made, 0, 1000), 2_000)
    assert is_about(count(made, 1000, 1500), 8_000)
    assert is_about(count(made, 1500, 3000), 3_000)


def test_a_day_begins_low_and_is_high_in_its_middle() -> None:
    made = diurnal(1.0, 21.0, 8000.0, period_s=4000.0)
    assert is_about(len(made), 88_000)  # the mean of a cosine is the middle
    lowest, highest = count(made, 0, 200), count(made, 1900, 2100)
    assert 200 < lowest < 400
    assert is_about(highest, 4150)
    assert is_about(count(made, 5900, 6100), 4150)  # the second day


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0, 4.0])
def test_bursts_have_their_rate_and_variation(cv: float) -> None:
    made = bursty(5.0, 20_000.0, cv=cv)
    gaps = np.diff(made.arrivals_s)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)
    assert len(made) == pytest.approx(100_000, abs=4 * cv * math.sqrt(100_000))


@pytest.mark.parametrize("seed", range(20))
def test_bursts_fill_a_time_in_which_a_single_gap_may_not_fit(seed: int) -> None:
    made = bursty(0.5, 10.0, cv=5.0, draw=Draw(seed))
    assert made.duration_s == 10.0
    assert len(made) < 200


@pytest.mark.parametrize("name", RECIPES)
def test_a_seed_makes_one_trace_and_another_seed_another(name: str) -> None:
    one, same, other = (by_name(name, 3.0, 100.0, draw=Draw(seed)) for seed in (1, 1, 2))
    for column in ("arrivals_s", "prompt_tokens", "output_tokens"):
        assert getattr(one, column).tolist() == getattr(same, column).tolist()
    assert one.arrivals_s.tolist() != other.arrivals_s.tolist()


@pytest.mark.parametrize("lengths", [CONVERSATION, CODE], ids=["conversation", "code"])
def test_lengths_have_their_medians_and_nearly_their_means(lengths: LengthModel) -> None:
    prompts, outputs = lengths.draw(100_000, np.random.default_rng(0))
    assert np.median(prompts) == pytest.approx(lengths.prompt_median, rel=0.02)
    assert np.median(outputs) == pytest.approx(lengths.output_median, rel=0.05)
    assert prompts.mean() == pytest.approx(lengths.prompt_mean, rel=0.03)  # caps take a little
    assert outputs.mean() == pytest.approx(lengths.output_mean, rel=0.05)


def test_lengths_keep_within_one_and_the_cap() -> None:
    lengths = LengthModel(
        prompt_median=2, prompt_mean=200, output_median=2, output_mean=200, max_prompt_tokens=50, max_output_tokens=9
    )
    prompts, outputs = lengths.draw(10_000, np.random.default_rng(0))
    assert (prompts.min(), prompts.max(), outputs.min(), outputs.max()) == (1, 50, 1, 9)


def test_lengths_of_which_mean_and_median_agree_do_not_vary() -> None:
    lengths = LengthModel(prompt_median=100, prompt_mean=100, output_median=7, output_mean=7)
    made = poisson(5.0, 20.0, draw=Draw(lengths=lengths))
    assert set(made.prompt_tokens.tolist()) == {100}
    assert set(made.output_tokens.tolist()) == {7}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"prompt_median": 0.5}, "prompt_median must be at least 1 token; got 0.5"),
        ({"output_mean": 100.0}, "output_mean must be at least output_median, 135"),
        ({"max_prompt_tokens": 500}, "max_prompt_tokens must be at least prompt_median, 968"),
    ],
)
def test_lengths_that_cannot_be_are_refused(fields: dict[str, float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LengthModel(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        pytest.param(lambda: poisson(0.0, 10.0), "rate must be a positive number; got 0", id="no-rate"),
        pytest.param(lambda: poisson(math.nan, 10.0), "rate must be a positive number; got nan", id="no-number"),
        pytest.param(lambda: poisson(1.0, -1.0), "duration_s must be a positive number; got -1", id="no-time"),
        pytest.param(lambda: poisson(1e6, 1e6), r"must be at most 2e\+07 requests; got 1e\+12", id="too-many"),
        pytest.param(lambda: step(1.0, 10.0, 10.0), "at_s must be from 0 to under the duration, 10 s; got 10", id="late-step"),
        pytest.param(lambda: step(1.0, 10.0, 5.0, factor=0.0), "factor must be a positive number", id="no-factor"),
        pytest.param(lambda: spike(1.0, 10.0, (5.0, 5.0)), "spike_s must be a positive number; got 0", id="no-spike"),
        pytest.param(lambda: diurnal(0.0, 2.0, 10.0, period_s=5.0), "low must be a positive number", id="no-low"),
        pytest.param(lambda: diurnal(2.0, 1.0, 10.0, period_s=5.0), "high must be at least low, 2; got 1", id="high-under-low"),
        pytest.param(lambda: diurnal(1.0, 2.0, 10.0, period_s=0.0), "period_s must be a positive number", id="no-period"),
        pytest.param(lambda: bursty(1.0, 10.0, cv=0.0), "cv must be a positive number", id="no-variation"),
    ],
)
def test_a_number_out_of_range_is_named(make: Callable[[], Trace], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()


def test_a_name_takes_options() -> None:
    made = by_name("step:at_s=80,factor=2", 50.0, 100.0)
    same = step(50.0, 100.0, 80.0, factor=2.0)
    assert made.arrivals_s.tolist() == same.arrivals_s.tolist()


def test_what_a_name_leaves_out_follows_rate_and_duration() -> None:
    made, same = by_name("spike", 5.0, 100.0), spike(5.0, 100.0, (25.0, 35.0), factor=10.0)
    assert made.arrivals_s.tolist() == same.arrivals_s.tolist()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("possion", r"no trace 'possion'; did you mean poisson\? take one of poisson, step, spike, diurnal, bursty"),
        ("", "no trace ''; take one of"),
        ("bursty:cb=3", "bursty has no option 'cb'; it has cv"),
        ("poisson:cv=3", "poisson has no option 'cv'; it has none"),
        ("step:factor=ten", "step: factor must be a number, such as factor=10; got 'ten'"),
        ("step:factor", "step: factor must be a number, such as factor=10; got ''"),
    ],
)
def test_a_wrong_name_is_explained(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        by_name(text, 1.0, 100.0)
