from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from loadtests.figures import figures
from loadtests.gates import findings
from loadtests.gates_config import Gates
from loadtests.outcomes import Outcome
from loadtests.report import render
from loadtests.result import FORMAT, Result, ResultError, facts_of, read_result
from tests.unit.loadtests.fakes import failed, run_of, sample, scenario, stream

LOOKS = [
    sample(
        at,
        {"chat/stable": 90, "chat/canary": 10},
        held=1,
        waiting={"chat/stable": at},
        running={"chat/stable": 4},
        replicas={"chat/stable": 2},
    )
    for at in range(10)
]


class Tags(HTMLParser):
    """Notes what is open, and what is never closed."""

    VOID = frozenset({"meta", "line", "path", "circle", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def result(*seen: Any, gates: dict[str, Any] | None = None, **fields: Any) -> Result:
    asked = scenario(**fields)
    run = run_of(asked, seen, samples=LOOKS)
    made = figures(asked, run)
    found = findings(Gates.model_validate(gates), made) if gates is not None else ()
    return Result(asked, made, facts_of(asked, run), found, ("be careful <here>",))


STREAMS = [stream(0.1 * number, variant=("chat", "stable" if number % 9 else "canary")) for number in range(60)]
FULL = result(*STREAMS, failed(2, Outcome.RATE_LIMITED, status=429), gates={"ttft_p95": "1ms", "split": {}, "min_requests": 5})


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    tags = Tags()
    tags.feed(render(FULL))
    assert (tags.open, tags.outside) == ([], [])
    assert tags.seen.count("figure") == 8
    assert "script" not in tags.seen


def test_the_page_says_what_failed_and_why() -> None:
    page = render(FULL)
    assert '<span class="verdict failed">failed</span>' in page
    assert "TTFT p95 is 500 ms (most 1 ms)" in page
    assert "rate_limited: 1" in page
    assert "be careful &lt;here&gt;" in page


def test_the_same_run_gives_the_same_page() -> None:
    assert render(FULL) == render(FULL)


def test_a_run_in_which_nothing_happened_has_a_page() -> None:
    tags = Tags()
    tags.feed(render(result()))
    assert tags.open == []


def test_a_ramp_has_pictures_by_level() -> None:
    ramp = {"mode": "closed", "shape": {"kind": "ramp", "level": 1, "peak": 3, "steps": 3}}
    page = render(result(*(stream(0.15 * number) for number in range(60)), load=ramp, duration=9))
    assert "Throughput by level" in page
    assert "TTFT p95 by level" in page


def test_an_earlier_run_stands_beside_this_one() -> None:
    earlier = json.loads(json.dumps(result(*(stream(0.1 * n, ttft_s=0.25) for n in range(60))).to_json()))
    page = render(FULL, earlier)
    assert '<td>250 ms</td><td>500 ms</td><td class="worse">+100' in page
    assert "dashed: earlier run" in page
    lacking = {**earlier, "figures": {"total": {}}, "cdf": {}}
    assert "Against an earlier run" not in render(FULL, lacking)


def test_a_result_is_json_that_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(FULL.to_json(), allow_nan=False))
    document = read_result(path)
    assert (document["format"], document["verdict"], document["exit_code"]) == (FORMAT, "failed", 1)
    assert document["figures"]["total"]["times"]["ttft"]["count"] == 60
    assert [gate["state"] for gate in document["gates"] if gate["name"] == "ttft_p95"] == ["failed"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("[]", "not a load test's result"), ('{"format": 99}', "of format 1"), ("<html>", "not JSON"), (None, "no such file")],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "r.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ResultError, match=said):
        read_result(path)


@pytest.mark.parametrize(
    ("made", "verdict", "code"),
    [
        pytest.param(result(*STREAMS), "none", 0, id="no-gates"),
        pytest.param(result(*STREAMS, gates={}), "passed", 0, id="passed"),
        pytest.param(FULL, "failed", 1, id="failed"),
        pytest.param(result(failed(1, Outcome.CONNECT)), "none", 2, id="nothing-answered"),
    ],
)
def test_the_exit_code_follows_from_the_gates(made: Result, verdict: str, code: int) -> None:
    assert (made.verdict, made.exit_code) == (verdict, code)
