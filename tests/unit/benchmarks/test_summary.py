import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.data_path.records import Row
from benchmarks.data_path.summary import Cell, Spread, Summary, figures, spread

MakeRow = Callable[..., Row]
MANTA, BARE, LITELLM = (Cell(system, "c=32") for system in ("manta", "bare", "litellm"))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        pytest.param([7.0], Spread(7.0, 7.0, 7.0, None, 1), id="one-round"),
        pytest.param([3.0, 1.0, 2.0], Spread(2.0, 1.0, 3.0, None, 3), id="too-few-for-quartiles"),
        pytest.param([5.0, 1.0, 2.0, 3.0, 4.0], Spread(3.0, 1.0, 5.0, (2.0, 4.0), 5), id="quartiles"),
    ],
)
def test_spread_is_median_extremes_and_quartiles_from_four_rounds(values: list[float], found: Spread) -> None:
    assert spread(values) == found


def test_ratio_is_taken_within_rounds(row: MakeRow) -> None:
    # The second round was ten times slower for both: the medians' ratio would say 3, the ratios' median says 2.
    rows = [
        row(1, "manta", tokens_per_s=2000),
        row(1, "litellm", tokens_per_s=1000),
        row(2, "manta", tokens_per_s=200),
        row(2, "litellm", tokens_per_s=100),
        row(3, "manta", tokens_per_s=3000),
        row(3, "litellm", tokens_per_s=500),
    ]
    assert Summary(rows).ratio("tokens_per_s", MANTA, LITELLM) == Spread(2.0, 2.0, 6.0, None, 3)


def test_rounds_that_only_one_side_has_are_left_out_of_a_ratio(row: MakeRow) -> None:
    rows = [row(1, "manta", tokens_per_s=900), row(2, "manta"), row(2, "bare", tokens_per_s=2000)]
    assert Summary(rows).ratio("tokens_per_s", MANTA, BARE) == Spread(0.5, 0.5, 0.5, None, 1)


def test_ratio_to_nothing_is_none(row: MakeRow) -> None:
    summary = Summary([row(1, "manta"), row(1, "litellm", tokens_per_s=0)])
    assert (summary.ratio("tokens_per_s", MANTA, LITELLM), summary.ratio("tokens_per_s", MANTA, BARE)) == (None, None)


def test_added_ttft_is_the_distance_from_bare_in_the_same_round(row: MakeRow) -> None:
    rows = [
        row(1, "bare", ttft_ms=10),
        row(1, "manta", ttft_ms=13),
        row(2, "bare", ttft_ms=50),
        row(2, "manta", ttft_ms=52),
        row(3, "manta", ttft_ms=99),  # no bare in this round
    ]
    summary = Summary(rows)
    assert summary.of(MANTA, "added_ttft_p50_ms") == Spread(2.5, 2.0, 3.0, None, 2)
    assert summary.of(BARE, "added_ttft_p50_ms") is None


def test_cpu_is_the_systems_without_the_engines(row: MakeRow) -> None:
    found = figures(row(1, "manta", tokens_per_s=1000, cpu_s=2.0))
    names = ("cpu_per_token_us", "cpu_per_token_us router", "cpu_per_token_us engine", "cpu_cores")
    assert [found[name] for name in names] == pytest.approx([200.0, 200.0, 100.0, 0.2])


def test_control_plane_is_kept_apart_from_the_data_path(row: MakeRow) -> None:
    plain = row(1, "manta", cpu_s=2.0)
    found = figures(replace(plain, costs={**plain.costs, "control": replace(plain.costs["router"], cpu_s=3.0)}))
    names = ("cpu_per_token_us", "cpu_cores", "control_cores", "rss_mib")
    assert [found[name] for name in names] == pytest.approx([200.0, 0.2, 0.3, 200.0])


def test_memory_per_stream_is_the_growth_from_before_the_load(row: MakeRow) -> None:
    found = figures(row(1, "manta", "hold=1000", rss_growth=4096 * 1000))
    assert (found["rss_per_stream_kib"], found["pss_per_stream_kib"]) == (4.0, 4.0)


def test_figures_that_a_load_cannot_have_are_left_out(row: MakeRow) -> None:
    found = figures(row(1, "manta", "rate=20", tokens_per_s=0, ttft_ms=math.nan))
    missing = {"ttft_p50_ms", "cpu_per_token_us", "cpu_per_request_us", "rss_per_stream_kib"}
    assert missing.isdisjoint(found)
    assert found["tokens_per_s"] == 0.0


def test_loads_and_systems_come_in_the_order_of_the_tables(row: MakeRow) -> None:
    loads = ("hold=1000", "c=128", "rate=20", "c=32", "hold=10", "c=1")
    summary = Summary([row(1, system, load) for system in ("litellm", "manta", "bare") for load in loads])
    assert summary.loads == ["c=1", "c=32", "c=128", "rate=20", "hold=10", "hold=1000"]
    assert summary.systems == ["bare", "manta", "litellm"]
    assert summary.roles(MANTA) == ["router", "engine"]


def test_errors_of_all_rounds_are_added_up(row: MakeRow) -> None:
    summary = Summary([row(1, "manta", errors=2), row(2, "manta"), row(3, "manta", errors=1)])
    assert (summary.total_errors(MANTA), summary.total_errors(BARE)) == (3, None)
