from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from autoscaling.simulation.report import HEADINGS, render, rows, sections
from autoscaling.simulation.results import Cost, Percentiles, Result, Service
from autoscaling.simulation.timeline import Timeline

FACTS = {"objectives": "first token within 2 s", "seed": "0"}
SAMPLES = 31


def result(policy: str, *, trace: str = "step", attainment: float = 0.9, hours: float = 2.0, ready: int = 3) -> Result:
    flat = Percentiles(0.1, 0.2, 0.3, 0.4)
    time_s = np.linspace(0.0, 300.0, SAMPLES)
    level = np.full(SAMPLES, float(ready))
    return Result(
        policy=policy,
        trace=trace,
        service=Service(1200, 1190, attainment, ttft_s=flat, itl_s=flat, queue_s=flat, gap_s=flat),
        cost=Cost(3600 * hours, mean_replicas=ready, max_replicas=ready + 1),
        reversals=2,
        timeline=Timeline(
            time_s, level + 1, level, level + 1, np.linspace(0, SAMPLES - 1, SAMPLES), level, np.full(SAMPLES, 5.0)
        ),
    )


RESULTS = [result("ours"), result("ray-default", attainment=0.95, hours=4.0), result("oracle", attainment=0.99, hours=1.6)]


class Elements(HTMLParser):
    """Collects what a page refers to, and whether its elements are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.links: list[str] = []
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "aria-labelledby":
                self.labels += (value or "").split()
            if name in {"src", "href"}:
                self.links.append(value or "")


def pictures(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]  # noqa: S314 - our own


def test_the_page_needs_nothing_else() -> None:
    page = Elements(html := render(RESULTS, FACTS))
    assert page.links == []
    assert {"script", "link", "img", "iframe"}.isdisjoint(page.names)
    assert "url(" not in html
    assert "@import" not in html


def test_the_same_results_give_the_same_page() -> None:
    assert render(RESULTS, FACTS) == render(RESULTS, FACTS)


def test_light_and_dark_are_both_there() -> None:
    assert "prefers-color-scheme: dark" in render(RESULTS, FACTS)


def test_every_picture_is_named_and_told_to_those_who_do_not_see_it() -> None:
    page = Elements(html := render([*RESULTS, result("ours", trace="spike")], FACTS))
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.labels) <= set(page.ids)
    drawn = pictures(html)
    assert len(drawn) == (2 + 2 * 2) + (2 + 2)
    for picture in drawn:
        assert picture.get("role") == "img"
        title, description = picture.find("title"), picture.find("desc")
        assert title is not None
        assert title.text
        assert description is not None
        assert description.text


def test_axes_have_units_and_labels_inside_the_picture() -> None:
    for picture in pictures(render(RESULTS, FACTS)):
        width, height = (float(side) for side in str(picture.get("viewBox")).split()[2:])
        words = [text.text or "" for text in picture.iter("text")]
        assert any(re.search(r"time \((s|min|h)\)|replica-hours", word) for word in words)
        assert sum(bool(re.fullmatch(r"[\d.,]+k?", word)) for word in words) >= 4
        for text in picture.iter("text"):
            if (x := text.get("x")) is not None:
                assert 0 <= float(x) <= width
                assert 0 <= float(str(text.get("y"))) <= height


def test_what_people_wrote_is_escaped() -> None:
    html = render([result("<b>ours</b>", trace="<i>&")], {"<u>": "<script>alert(1)</script>"})
    for raw in ("<b>", "<i>", "<u>", "<script>"):
        assert raw not in html
    assert "&lt;script&gt;" in html


def test_facts_are_shown_in_their_order() -> None:
    html = render(RESULTS, FACTS)
    assert re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", html) == list(FACTS.items())


def test_a_row_has_a_cell_for_each_heading() -> None:
    first, second, oracle = rows(RESULTS)
    assert [len(row.cells) + 1 for row in (first, second, oracle)] == [len(HEADINGS)] * 3
    assert first.cells == ("90.00", "0.10", "0.30", "0.40", "300", "0.40", "2.00", "1.25", "2", "4")
    assert [row.kind for row in (first, second, oracle)] == ["p0", "p1", "oracle"]
    assert (second.cells[7], oracle.cells[7]) == ("2.50", "1.00")


def test_what_was_not_measured_is_a_dash() -> None:
    nothing = Percentiles(math.nan, math.nan, math.nan, math.nan)
    empty = Service(0, 0, 1.0, ttft_s=nothing, itl_s=nothing, queue_s=nothing, gap_s=nothing)
    [row] = rows([Result("ours", "none", empty, Cost(0.0, 0.0, 0), 0, result("ours").timeline)])
    assert row.cells == ("100.00", "-", "-", "-", "-", "-", "0.00", "-", "0", "0")


def test_each_trace_has_its_section() -> None:
    made = list(sections([result("ours", trace="b"), result("ours", trace="a"), result("oracle", trace="b")]))
    assert [(section.trace, len(section.rows)) for section in made] == [("b", 2), ("a", 1)]


def test_each_policy_has_its_replicas_before_the_oracles_and_its_queue() -> None:
    [section] = sections(RESULTS)
    assert [chart.title for chart in section.charts] == [
        "Service against cost",
        "Arrivals",
        "ours: replicas",
        "ours: queue depth",
        "ray-default: replicas",
        "ray-default: queue depth",
    ]
    assert [line.kind for line in section.charts[2].lines] == ["oracle", "p0 target", "p0"]
    assert [line.kind for line in section.charts[3].lines] == ["oracle", "p0"]


def test_policies_are_drawn_to_one_scale() -> None:
    [section] = sections([result("ours", ready=2), result("other", ready=40)])
    replicas = [chart for chart in section.charts if chart.title.endswith("replicas")]
    assert len({chart.y.high for chart in replicas}) == 1


def test_an_oracle_alone_is_drawn() -> None:
    [section] = sections([result("oracle")])
    assert [chart.title for chart in section.charts] == ["Service against cost", "Arrivals", "oracle: replicas"]


def test_the_frontier_joins_what_nothing_beats() -> None:
    [section] = sections(
        [
            result("cheap", attainment=0.5, hours=1.0),
            result("beaten", attainment=0.4, hours=2.0),
            result("good", attainment=0.9, hours=3.0),
            result("beaten too", attainment=0.9, hours=3.5),
        ]
    )
    [line] = section.charts[0].lines
    cheap, _, good, _ = section.charts[0].points
    assert line.path == f"M{cheap.x} {cheap.y}L{good.x} {good.y}"


def test_a_run_without_a_timeline_has_no_plots_of_time() -> None:
    nothing = np.zeros(0)
    bare = result("ours")
    empty = Result(bare.policy, bare.trace, bare.service, bare.cost, 0, Timeline(*[nothing] * 7))
    [section] = sections([empty])
    assert [chart.title for chart in section.charts] == ["Service against cost"]


def test_many_policies_share_colours() -> None:
    kinds = [row.kind for row in rows([result(f"policy {index}") for index in range(8)])]
    assert kinds == ["p0", "p1", "p2", "p3", "p4", "p5", "p0", "p1"]


@pytest.mark.parametrize("count", [1, 6])
def test_every_colour_that_is_used_has_a_style(count: int) -> None:
    html = render([result(f"policy {index}") for index in range(count)], FACTS)
    for index in range(count):
        assert f"path.p{index} {{ stroke: var(--p{index}); }}" in html
        assert html.count(f"--p{index}: #") == 2
