from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from autoscaling.locust_history import Entry, HistoryError, Plateau, plateaus, read

HEADER = "Timestamp,User Count,Type,Name,95%,99%,Total Request Count,Total Failure Count,Total Average Response Time"


def history(*lines: str) -> list[str]:
    return [HEADER, *lines]


def line(at_s: int, users: int, *, kind: str = "POST", name: str = "/chat", p95: str = "100", rate: float = 2.0) -> str:
    """Return a line of requests that come at a steady rate and take 50 ms each."""
    return f"{at_s},{users},{kind},{name},{p95},{p95},{int(rate * at_s)},0,50.0"


def levels(lines: Iterable[str], *, settle_s: float = 2.0, name: str | None = None) -> list[Plateau]:
    return plateaus(read(history(*lines)), settle_s=settle_s, name=name)


def held(users: int, start_s: int, end_s: int) -> Iterator[str]:
    return (line(at_s, users) for at_s in range(start_s, end_s + 1))


def test_a_level_is_a_number_of_users_that_lasts_without_its_begin() -> None:
    ramp = (line(s, s + 1) for s in range(3))
    found = levels([*ramp, *held(8, 3, 15), *held(16, 16, 26), line(27, 0)])
    assert [(each.users, each.seconds) for each in found] == [(8, 10.0), (16, 8.0)]


def test_an_entry_is_the_difference_of_totals() -> None:
    rows = [f"{s},4,POST,/chat,{p95},{p95},{total},{failed},{mean}" for s, p95, total, failed, mean in (
        (0, 900, 100, 10, 500.0),
        (5, 200, 110, 11, 500.0),
        (10, 300, 120, 13, 475.0),
    )]  # fmt: skip
    [level] = levels(rows, settle_s=0)
    assert level.whole is not None
    assert replace(level.whole, mean_s=0.0) == Entry(20, 3, 0.0, 0.3, 0.3)
    assert level.whole.mean_s == pytest.approx(0.35)
    assert level.counted is level.whole


def test_levels_come_by_rising_users() -> None:
    assert [each.users for each in levels([*held(16, 0, 10), *held(8, 11, 21)])] == [8, 16]


def test_events_are_kept_apart_from_the_requests() -> None:
    kinds = (("TTFT", "chat", "40"), ("ITL", "chat", "0"), ("POST", "/v1/chat/completions", "900"))
    [level] = levels(line(s, 4, kind=kind, name=name, p95=p95) for s in range(11) for kind, name, p95 in kinds)
    assert [each and each.p95_s for each in (level.first, level.gap, level.answer)] == [0.04, 0.0, 0.9]


def test_a_stream_that_was_timed_at_its_headers_has_no_whole_time() -> None:
    kinds = (("TTFT", "chat"), ("POST", "/v1/chat/completions"))
    [level] = levels(line(s, 4, kind=kind, name=name) for s in range(11) for kind, name in kinds)
    assert (level.whole, level.counted) == (None, level.answer)


def test_a_window_in_which_nothing_ended_does_not_count() -> None:
    [level] = levels(line(s, 4, p95="0" if s % 2 else "80") for s in range(11))
    assert level.whole is not None
    assert level.whole.p95_s == 0.08


def test_several_requests_have_a_rate_and_no_percentile() -> None:
    [level] = levels(line(s, 4, name=name) for s in range(11) for name in ("/a", "/b"))
    assert level.whole is not None
    assert (level.whole.requests, level.whole.p95_s) == (32, None)


def test_a_name_chooses_one_of_several() -> None:
    rows = [line(s, 4, name=name) for s in range(11) for name in ("/a", "/b")]
    [level] = levels(rows, name="/a")
    assert level.whole is not None
    assert (level.whole.requests, level.whole.p95_s) == (16, 0.1)


def test_a_models_name_keeps_the_requests_behind_its_events() -> None:
    kinds = (("TTFT", "chat"), ("TTFT", "code"), ("POST", "/v1/chat/completions"))
    [level] = levels((line(s, 4, kind=kind, name=name) for s in range(11) for kind, name in kinds), name="chat")
    assert [each and each.requests for each in (level.first, level.answer)] == [16, 16]


def test_a_percentile_that_is_not_known_yet_is_left_out() -> None:
    [level] = levels([line(s, 4, p95="N/A" if s < 5 else "90") for s in range(11)])
    assert level.whole is not None
    assert level.whole.p95_s == 0.09


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param([], "column 'Timestamp' is missing, .* run Locust with", id="empty"),
        pytest.param(["a,b", "1,2"], "column 'Timestamp' is missing", id="another-csv"),
        pytest.param([HEADER], "no row under the column names", id="no-rows"),
        pytest.param(history(line(1, 1, kind="", name="Aggregated")), "'Name' has only 'Aggregated' rows", id="aggregated"),
        pytest.param(history(line(1, 1), "5,x,POST,/a,1,1,1,0,1"), "line 3, column 'User Count': 'x' is not a", id="text"),
        pytest.param(history(line(1, 1), "5,nan,POST,/a,1,1,1,0,1"), "line 3, column 'User Count': 'nan' is not a", id="nan"),
        pytest.param(history("5,1,POST,/a,inf,1,1,0,1"), "line 2, column '95%': 'inf' is not a number", id="inf"),
        pytest.param(history("-inf,1,POST,/a,1,1,1,0,1"), "line 2, column 'Timestamp': '-inf' is not a", id="minus-inf"),
        pytest.param(history("5,1,POST,/a,1,-1,1,0,1"), "line 2, column '99%': '-1' is under 0, which Locust", id="under-0"),
        pytest.param(
            history("5,1,POST,/a,1,1,1,-2,1"), "line 2, column 'Total Failure Count': '-2' is under 0", id="failures-under-0"
        ),
        pytest.param(history("5,4"), "line 2, column 'Total Request Count': '' is not a number; remove", id="cut-off"),
    ],
)
def test_what_is_no_history_is_refused(lines: list[str], message: str) -> None:
    with pytest.raises(HistoryError, match=message):
        read(lines)


@pytest.mark.parametrize(
    ("lines", "name", "message"),
    [
        pytest.param([*held(4, 0, 5)], None, r"never kept one value for 7 s \(the longest was 4 users for 5 s\)", id="short"),
        pytest.param([*held(0, 0, 50)], None, r"never kept one value for 7 s \(there were no users\)", id="nobody"),
        pytest.param([line(s, 4, rate=0) for s in range(11)], None, "no request ended at 4 users within 8 s", id="idle"),
        pytest.param([*held(4, 0, 10)], "x", "'Name' never has 'x': choose with --name among /chat", id="unknown-name"),
        pytest.param(
            [line(s, 4, kind="TTFT", name=name) for s in range(11) for name in "ba"],
            None,
            r"type TTFT have several names \(a, b\): choose one with --name",
            id="two-models",
        ),
    ],
)
def test_a_history_without_levels_says_why(lines: list[str], name: str | None, message: str) -> None:
    with pytest.raises(HistoryError, match=message):
        levels(lines, name=name)
