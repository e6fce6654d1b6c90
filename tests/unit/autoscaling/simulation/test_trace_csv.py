from __future__ import annotations

from pathlib import Path

import pytest

from autoscaling.simulation.trace import poisson
from autoscaling.simulation.trace_csv import read_csv

OWN = "arrival_s,prompt_tokens,output_tokens\n"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rush.csv"


def test_what_is_written_is_read_again(file: Path) -> None:
    made = poisson(5.0, 100.0)
    rows = zip(made.arrivals_s.tolist(), made.prompt_tokens.tolist(), made.output_tokens.tolist(), strict=True)
    file.write_text(OWN + "".join(f"{at_s!r},{prompt},{output}\n" for at_s, prompt, output in rows))
    read = read_csv(file)
    assert read.name == "rush"
    for column in ("arrivals_s", "prompt_tokens", "output_tokens"):
        assert getattr(read, column).tolist() == getattr(made, column).tolist()
    assert read.duration_s == made.arrivals_s[-1]


def test_our_own_format(file: Path) -> None:
    file.write_text(f"{OWN}0.5,10,20\n\n1e1,30,40\n")
    read = read_csv(file)
    assert (read.arrivals_s.tolist(), read.prompt_tokens.tolist(), read.output_tokens.tolist()) == (
        [0.5, 10],
        [10, 30],
        [20, 40],
    )


def test_requests_are_sorted_and_other_columns_passed_over(file: Path) -> None:
    file.write_text("user, output_tokens ,arrival_s,prompt_tokens\nann,1,7,2\nbob,3,5,4\n")
    read = read_csv(file)
    assert (read.arrivals_s.tolist(), read.prompt_tokens.tolist(), read.output_tokens.tolist()) == ([5, 7], [4, 2], [3, 1])


def test_azures_format_of_2023_and_2024(file: Path) -> None:
    file.write_text(
        f"{AZURE}2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n2023-11-17 18:15:46.6805900,9,0\n"
    )
    read = read_csv(file)
    assert read.arrivals_s.tolist() == pytest.approx([0.0, 4.314579], abs=1e-5)
    assert read.prompt_tokens.tolist() == [374, 396]  # the third has failed: it has generated nothing
    file.write_text(f"{AZURE}2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01.017335+00:00,2399,6\n")
    assert read_csv(file).arrivals_s.tolist() == pytest.approx([0.0, 1.007405])


def test_burstgpts_format(file: Path) -> None:
    file.write_text(
        f"{BURST}5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n50,GPT-4,7,0,7,API log\n"
    )
    read = read_csv(file)
    assert (read.arrivals_s.tolist(), read.prompt_tokens.tolist(), read.output_tokens.tolist()) == (
        [0, 40],
        [472, 1087],
        [18, 230],
    )


def test_a_byte_order_mark_is_no_part_of_the_header(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + f"{OWN}0,1,1\n".encode())
    assert len(read_csv(file)) == 1


def test_a_single_request_at_the_begin_lasts_a_second(file: Path) -> None:
    file.write_text(f"{OWN}0,1,1\n")
    assert read_csv(file).duration_s == 1.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("", ":1: the header names no known columns; write arrival_s,prompt_tokens,output_tokens .*; got nothing"),
        pytest.param(
            "time,tokens\n", r":1: the header .* or Timestamp,Request tokens,Response tokens \(BurstGPT's\); got time,"
        ),
        pytest.param(OWN, "has no requests under its header; add rows of arrival_s,prompt_tokens,output_tokens"),
        pytest.param(f"{OWN}0,1,1\n1,2\n", ":3: 2 columns, the header needs 3; complete the line"),
        pytest.param(f"{OWN}soon,1,1\n", ":2: arrival_s: write seconds since the trace began, such as 12.5; got 'soon'"),
        pytest.param(f"{OWN}-1,1,1\n", ":2: arrival_s: write seconds .*; got '-1'"),
        pytest.param(f"{OWN}inf,1,1\n", ":2: arrival_s: write seconds .*; got 'inf'"),
        pytest.param(f"{OWN}0,1.5,1\n", ":2: prompt_tokens: write a whole number of tokens, at least 1; got '1.5'"),
        pytest.param(f"{OWN}0,1,1\n\n1,1,0\n", ":4: output_tokens: write a whole number of tokens, at least 1; got '0'"),
        pytest.param(f"{OWN}0,1,99999999999\n", ":2: output_tokens: write a whole number"),
        pytest.param(
            f"{AZURE}yesterday,1,1\n", ":2: TIMESTAMP: write a time such as 2023-11-16 18:15:46.6805900; got 'yesterday'"
        ),
        pytest.param(
            f"{AZURE}2023-11-16 18:15:46,-1,1\n", ":2: ContextTokens: write a whole number of tokens, at least 0; got '-1'"
        ),
        pytest.param(f"{BURST}1,ChatGPT,x,1,1,API log\n", ":2: Request tokens: write a whole number of tokens"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(file: Path, text: str, why: str) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=f"rush.csv{why}" if why.startswith(":") else why) as caught:
        read_csv(file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("times", "why"),
    [
        pytest.param(("18:15:47", "18:15:46+00:00"), "has a zone and those before it have none", id="with-after-without"),
        pytest.param(("18:15:47Z", "18:15:46"), "has no zone and those before it have one", id="without-after-with"),
    ],
)
def test_times_with_and_without_a_zone_do_not_mix(file: Path, times: tuple[str, str], why: str) -> None:
    file.write_text(AZURE + "".join(f"2023-11-16 {time},1,1\n" for time in times))
    with pytest.raises(ValueError, match=rf"rush.csv:3: TIMESTAMP: this time {why}; write all with their zone, or none; got"):
        read_csv(file)


def test_times_of_several_zones_are_compared(file: Path) -> None:
    file.write_text(f"{AZURE}2023-11-16 20:15:47+02:00,1,1\n2023-11-16 18:15:46+00:00,2,1\n")
    read = read_csv(file)
    assert (read.arrivals_s.tolist(), read.prompt_tokens.tolist()) == ([0, 1], [2, 1])


@pytest.mark.parametrize("first", [1_700_000_000, 1_700_000_000_000], ids=["unix-seconds", "unix-milliseconds"])
def test_times_that_do_not_count_from_the_begin_are_refused(file: Path, first: int) -> None:
    file.write_text(f"{OWN}{first + 5},1,1\n{first},1,1\n")
    fix = "seconds, not milliseconds, from the trace's start: subtract the first one$"
    why = f"rush.csv: arrival_s: its first request arrives at {first}, .* {fix}"
    with pytest.raises(ValueError, match=why):
        read_csv(file)


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(ValueError, match=r"rush.csv cannot be read: no such file or directory; give a CSV file in UTF-8"):
        read_csv(file)


def test_a_file_that_is_no_text_is_named(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"rush.csv cannot be read: .*; give a CSV file in UTF-8"):
        read_csv(file)
