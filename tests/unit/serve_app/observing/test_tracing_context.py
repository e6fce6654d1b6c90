from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from serve_app.contracts import TraceLink
from serve_app.observing.tracing_context import arrived, joined, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"01-{TRACE}-{SPAN}-01-more", True),
        (f" 00-{TRACE}-{SPAN}-01 ", True),
    ],
    ids=["sampled", "not-sampled", "random-flag", "later-version", "spaces"],
)
def test_a_clients_header_is_read(header: str, is_sampled: bool) -> None:
    assert parse(header) == (TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\r\nx: y",
    ],
    ids=["none", "empty", "version-ff", "too-long", "no-trace", "no-span", "upper-case", "too-short", "two-lines"],
)
def test_what_is_no_header_begins_a_trace_of_its_own(header: str | None) -> None:
    assert parse(header) is None
    made = arrived(header, "vendor=1", ratio=1, export="{}")
    assert (len(made.trace_id), made.parent_id, made.is_sampled, made.state) == (32, "", True, "")


@pytest.mark.parametrize("state", ["", "a\nb", "é=1", "x" * 513], ids=["empty", "two-lines", "not-ascii", "too-long"])
def test_a_state_that_could_harm_is_dropped(state: str) -> None:
    assert arrived(f"00-{TRACE}-{SPAN}-01", state, ratio=1, export="").state == ""


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
def test_the_same_traces_are_sampled_as_by_opentelemetrys_own_sampler(ratio: float) -> None:
    sampler = TraceIdRatioBased(ratio)
    made = [arrived(None, None, ratio=ratio, export="") for _ in range(500)]
    theirs = [sampler.should_sample(None, int(each.trace_id, 16), "x").decision is Decision.RECORD_AND_SAMPLE for each in made]
    assert [each.is_sampled for each in made] == theirs


def test_a_ratio_takes_about_its_share() -> None:
    sampled = sum(arrived(None, None, ratio=0.25, export="").is_sampled for _ in range(4_000))
    assert 800 < sampled < 1_200


def test_a_link_leads_to_a_child_in_the_same_trace() -> None:
    made = arrived(f"00-{TRACE}-{SPAN}-01", "vendor=1", ratio=0, export="{}")
    child = joined(made.link("1" * 16))
    assert child is not None
    assert (child.trace_id, child.parent_id, child.state, child.export) == (TRACE, "1" * 16, "vendor=1", "{}")
    assert len({made.span_id, child.span_id, SPAN, "1" * 16}) == 4


@pytest.mark.parametrize(
    "link", [TraceLink(f"00-{TRACE}-{SPAN}-00", "", "{}"), TraceLink(f"00-{TRACE}-{SPAN}-01"), TraceLink("", "", "{}")]
)
def test_a_link_without_a_kept_trace_leads_nowhere(link: TraceLink) -> None:
    assert joined(link) is None
