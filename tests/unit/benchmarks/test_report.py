import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from benchmarks.data_path.plots import PICTURES, axis_over, draw, draw_all
from benchmarks.data_path.records import Failure, Row, Run
from benchmarks.data_path.report import render, replace_block
from benchmarks.data_path.summary import Summary

MakeRow = Callable[..., Row]
RUN = Run(
    engine="fake",
    settings={"tokens": 64, "seed": 0},
    machine={"cpu": "Some CPU", "usable_cores": 2, "memory_gib": 8, "commit": "abc", "packages": {"ray": "2.60.0"}},
    date="2026-01-01T00:00:00+00:00",
)


def two_rounds(row: MakeRow) -> Summary:
    records: list[Row | Failure] = []
    for number in (1, 2):
        records += [row(number, "bare"), row(number, "manta", ttft_ms=12 + number, tokens_per_s=800)]
    return Summary([*records, Failure(1, "litellm", "start", None, "StartError: port | taken\n  it said")])


def test_block_is_replaced_and_the_rest_kept() -> None:
    document = "a\n<!-- data-path:fake -->\nold\n<!-- /data-path:fake -->\nb <!-- data-path:vllm --><!-- /data-path:vllm -->"
    replaced = replace_block(document, "fake", "new\n")
    expected = (
        "a\n<!-- data-path:fake -->\n\nnew\n\n<!-- /data-path:fake -->\nb <!-- data-path:vllm --><!-- /data-path:vllm -->"
    )
    assert replaced == expected
    assert replace_block(replaced, "fake", "new") == replaced


@pytest.mark.parametrize("document", ["", "<!-- data-path:fake -->", "<!-- /data-path:fake --><!-- data-path:fake -->"])
def test_document_without_both_markers_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match="<!-- data-path:fake -->"):
        replace_block(document, "fake", "new")


def test_traffic_line_gives_medians_and_spreads(row: MakeRow) -> None:
    lines = render(two_rounds(row), RUN, {}).splitlines()
    manta = next(line for line in lines if line.startswith("| c=32 | manta |"))
    assert manta == (
        "| c=32 | manta | 12.5 | 800 | 0.80x | 13.5 (13.0 to 14.0) | 3.50 (3.00 to 4.00) "
        "| 40.5 (39.0 to 42.0) | 10.0 | 30.0 | 0 |"
    )


def test_failures_are_listed_on_one_line_each(row: MakeRow) -> None:
    assert "| 1 | litellm | start | StartError: port \\| taken it said |" in render(two_rounds(row), RUN, {}).splitlines()


def test_report_says_where_and_with_what(row: MakeRow) -> None:
    lines = render(two_rounds(row), RUN, {"Tokens": "benchmarks/fake-throughput.svg"}).splitlines()
    assert "- Rounds: 2. Begun 2026-01-01T00:00:00+00:00, commit abc." in lines
    assert "- Versions: ray 2.60.0." in lines
    assert "![Tokens](benchmarks/fake-throughput.svg)" in lines


def test_every_table_row_has_as_many_cells_as_its_head(row: MakeRow) -> None:
    held = [row(1, system, load, itl_ms=500) for system in ("bare", "manta") for load in ("hold=10", "hold=1000")]
    blocks = render(Summary([row(1, "bare"), row(1, "manta"), row(1, "litellm"), *held]), RUN, {}).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 5
    assert all(len({line.replace("\\|", "").count("|") for line in table}) == 1 for table in tables)


def test_pictures_are_svg_with_a_row_for_each_system(row: MakeRow) -> None:
    drawn = draw_all(two_rounds(row), "fake")
    assert [picture.name for picture in drawn] == ["throughput", "ttft", "cpu"]  # nothing was held
    for picture, svg in drawn.items():
        texts = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314
        assert texts[0] == f"{picture.title} (fake engine)"
        assert "manta" in texts
        assert ("bare" in texts) == (picture.name != "cpu")


def test_names_are_escaped_in_pictures(row: MakeRow) -> None:
    ET.fromstring(draw(Summary([row(1, "<b>&")]), PICTURES[0], "fake & native"))  # noqa: S314


@pytest.mark.parametrize(
    ("values", "scale", "ticks"),
    [
        pytest.param([3.0, 2500.0], "log", [1.0, 10.0, 100.0, 1000.0, 10000.0], id="powers-of-ten"),
        pytest.param([0.3, 4.0], "log", [0.2, 0.5, 1.0, 2.0, 5.0], id="one-two-five"),
        pytest.param([10.0], "log", [5.0, 10.0, 20.0], id="log-has-two-ends"),
        pytest.param([870.0], "linear", [0, 200, 400, 600, 800, 1000], id="round-steps-from-zero"),
        pytest.param([], "linear", [0, 0.2, 0.4, 0.6, 0.8, 1.0], id="nothing"),
    ],
)
def test_axis_holds_its_values_between_round_ticks(values: list[float], scale: str, ticks: list[float]) -> None:
    axis = axis_over(values, "log" if scale == "log" else "linear")
    assert axis.ticks() == pytest.approx(ticks)
