from __future__ import annotations

import numpy as np
import pytest

from autoscaling.simulation import chart
from autoscaling.simulation.chart import HEIGHT, LEFT, WIDTH, Axis, Tick, axis, time_axis

X, Y = axis("x", 0.0, 10.0), axis("y", 0.0, 10.0)
ZERO_Y, TOP_Y = HEIGHT - chart.BOTTOM, chart.TOP
RIGHT_X = WIDTH - chart.RIGHT


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 10.0, (0, 2, 4, 6, 8, 10)),
        (0.0, 9.0, (0, 2, 4, 6, 8, 10)),
        (0.0, 1234.0, (0, 250, 500, 750, 1000, 1250)),
        (0.0, 0.034, (0, 0.01, 0.02, 0.03, 0.04)),
        (97.3, 100.0, (97, 98, 99, 100)),
        (0.0, 0.0, (0, 0.2, 0.4, 0.6, 0.8, 1)),
    ],
)
def test_an_axis_ends_at_round_numbers(low: float, high: float, ticks: tuple[float, ...]) -> None:
    made = axis("x", low, high)
    assert made.ticks == pytest.approx(ticks)
    assert (made.low, made.high) == (made.ticks[0], made.ticks[-1])


@pytest.mark.parametrize(("high", "ticks"), [(0.0, (0, 1)), (2.0, (0, 1, 2)), (7.0, (0, 2, 4, 6, 8)), (12.0, (0, 3, 6, 9, 12))])
def test_whole_numbers_have_no_labels_between_them(high: float, ticks: tuple[float, ...]) -> None:
    assert axis("replicas", 0.0, high, whole=True).ticks == ticks


@pytest.mark.parametrize(
    ("duration_s", "label", "shown"),
    [
        (300.0, "time (s)", ["0", "100", "200", "300"]),
        (1800.0, "time (min)", ["0", "10", "20", "30"]),
        (86_400.0, "time (h)", ["0", "5", "10", "15", "20"]),
    ],
)
def test_time_is_shown_in_the_unit_that_fits(duration_s: float, label: str, shown: list[str]) -> None:
    made = time_axis(duration_s)
    assert made.label == label
    assert (made.low, made.high) == (0.0, duration_s)
    assert [tick.label for tick in made.marks(LEFT, RIGHT_X)] == shown


def test_labels_stand_where_their_values_are() -> None:
    made = Axis("requests", 0.0, 2000.0, (0.0, 1000.0, 2000.0))
    assert made.marks(100, 300) == (Tick(100.0, "0"), Tick(200.0, "1,000"), Tick(300.0, "2,000"))


def test_long_numbers_are_shown_in_thousands() -> None:
    assert [tick.label for tick in Axis("requests", 0.0, 125_000.0, (9000.0, 12_500.0, 125_000.0)).marks(0, 1)] == [
        "9,000",
        "12.5k",
        "125k",
    ]


def test_stairs_have_a_point_for_each_change_only() -> None:
    times, values = np.array([0.0, 1.0, 2.0, 5.0, 10.0]), np.array([0.0, 0.0, 10.0, 10.0, 10.0])
    assert chart.stairs(times, values, (X, Y)) == f"M{LEFT}.0 {ZERO_Y}.0H{X.place(2, LEFT, RIGHT_X):.1f}V{TOP_Y}.0H{RIGHT_X}.0"


def test_a_curve_goes_through_every_point() -> None:
    path = chart.curve(np.array([0.0, 10.0]), np.array([0.0, 10.0]), (X, Y))
    assert path == f"M{LEFT}.0 {ZERO_Y}.0L{RIGHT_X}.0 {TOP_Y}.0"


def test_nothing_makes_no_path() -> None:
    nothing = np.zeros(0)
    assert (chart.stairs(nothing, nothing, (X, Y)), chart.curve(nothing, nothing, (X, Y))) == ("", "")


def test_few_points_are_kept() -> None:
    times, values = np.linspace(0, 4, 5), np.linspace(0, 4, 5)
    assert chart.thinned(times, values, np.max) == (times, values)


def test_many_points_become_few_and_keep_their_peak() -> None:
    times, values = np.linspace(0, 999, 1000), np.zeros(1000)
    values[777] = 9.0
    fewer, peaks = chart.thinned(times, values, np.max)
    assert len(fewer) == len(peaks) == 200
    assert (fewer[155], peaks[155], peaks.sum()) == (775.0, 9.0, 9.0)


def box(point: chart.Point) -> tuple[float, float, float, float]:
    return point.label_x, point.label_y - 10, point.label_x + 6 * len(point.label), point.label_y + 2


def test_labels_do_not_cover_each_other() -> None:
    places = [
        (5.0, 9.9, "ours", "p0"),
        (5.1, 9.8, "ray-default", "p1"),
        (5.2, 10.0, "hpa-qps", "p2"),
        (9.9, 10.0, "oracle", "oracle"),
    ]
    boxes = [box(point) for point in chart.scatter(places, (X, Y))]
    for index, one in enumerate(boxes):
        assert one[0] >= LEFT
        assert one[2] <= WIDTH
        for other in boxes[index + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_a_label_without_any_place_stands_beside_its_point() -> None:
    points = chart.scatter([(5.0, 5.0, f"a policy with a long name {index}", "p0") for index in range(40)], (X, Y))
    assert points[-1].label_x == points[-1].x + chart.GAP + 2
