from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from serve_app import cli
from serve_app.commands import rollout
from serve_app.commands.rollout_tables import changes, headline, report, span
from serve_app.errors import CommandError

NOW_S = 1_000_000.0
GATE = {
    "gate": "ttft_p95_ratio",
    "verdict": "wait",
    "reason": "[evidence] 1.2 of 2.3",
    "attempts": 120,
    "bad": 3,
    "observed_rate": 0.025,
    "allowed_rate": 0.05,
    "threshold_s": 0.75,
    "baseline": 0.5,
    "evidence": -3.0,
    "evidence_needed": 2.0,
    "acceptance": 1.15,
    "acceptance_needed": 2.3,
}
HANG = GATE | {
    "gate": "hang",
    "reason": "",
    "observed_rate": None,
    "acceptance": None,
    "acceptance_needed": None,
    "evidence": 1.0,
}
LAST = {
    "requests": 60,
    "error_rate": 0.0125,
    "ttft_s": {"p50": 0.25, "p95": 0.5, "p99": 1.0},
    "itl_s": {"p50": 0.0105, "p95": None, "p99": None},
}
SPLIT: dict[str, Any] = {
    "name": "chat",
    "phase": "running",
    "reason": "every gate has passed",
    "step": 1,
    "steps": [{"weight": 10, "pause": 60.0}, {"weight": 25, "pause": 600.0}],
    "step_since_s": NOW_S - 190,
    "crashes": 1,
    "variant": "canary",
    "baseline": "stable",
    "weights": {"stable": 75, "canary": 25},
    "declared_weights": {"stable": 90, "canary": 10},
    "withdrawn": [],
    "verdict": "wait",
    "readings": [GATE, HANG],
}
PLAIN: dict[str, Any] = {
    **SPLIT,
    **{"name": "docs", "phase": None, "reason": "", "step": None, "steps": [], "step_since_s": None, "variant": None},
    **{"weights": {"v1": 100}, "declared_weights": {"v1": 100}, "baseline": "v1", "verdict": None, "readings": []},
}
LOAD_TEST = HANG | {"gate": "load_test", "reason": "waits for load test smoke: no result has been published"}
COPIES: dict[str, Any] = {"name": "chat", "variant": "next", "copied": 50, "dropped": {"busy": 2}, "failed": {"timeout": 1}}
AGREED = {"compared": 40, "agreement_ratio": 0.95, "mean_similarity": 0.98}
DOCUMENT: dict[str, Any] = {
    "table": {"version": 7, "digest": "d"},
    "routers": {"a": 7, "b": 6},
    "refused": None,
    "splits": [SPLIT, PLAIN],
    "stats": [{"name": "chat", "variant": "canary", "last_minute": LAST, "total": LAST, "open": 4}],
    "shadows": [COPIES | AGREED],
}
MADE = {
    "at_s": 0.0,
    "name": "chat",
    "action": "aborted",
    "phase": "aborted",
    "step": 1,
    "weights": {"stable": 100, "canary": 0},
    "before": {"stable": 75, "canary": 25},
    "reason": "by ann",
    "readings": [GATE],
}
ADVANCED = MADE | {"action": "advanced", "phase": "running", "reason": "every gate has passed", "before": {}, "at_s": 86399.0}


def lines(document: dict[str, Any]) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=200)
    for each in report(document, now_s=NOW_S):
        console.print(each)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│").split("│")]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the command asked of a platform that has `chat` and `docs`."""
    requests: list[str] = []
    answers: dict[str, Any] = {
        "GET /admin/rollouts": DOCUMENT,
        "GET /admin/rollouts/chat": {**SPLIT, **{k: v for k, v in DOCUMENT.items() if k != "splits"}},
        "GET /admin/rollouts/chat/history": {"decisions": [ADVANCED, MADE]},
    }

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(f"{request.method} {request.url.raw_path.decode()}")
        if request.method == "POST":
            return httpx.Response(200, json=MADE)
        found = answers.get(requests[-1])
        return httpx.Response(200, json=found) if found else httpx.Response(404, json={"error": {"message": "no such"}})

    monkeypatch.setattr(rollout, "connect", lambda url: client(handle))
    return requests


def client(handle: Callable[[httpx.Request], httpx.Response]) -> httpx.Client:
    return httpx.Client(base_url="http://platform", transport=httpx.MockTransport(handle))


def manta(*arguments: str, **more: Any) -> Any:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["rollout", *arguments], **more)


def test_a_split_shows_phase_step_weights_and_verdict() -> None:
    assert lines(DOCUMENT)[:4] == [
        "chat: running, step 2 of 2 (25 %), for 3m 10s of at least 10m",
        "  weights: stable 75 % (declared 90), canary 25 % (declared 10); baseline stable",
        "  because: every gate has passed",
        "  verdict: wait; replicas lost: 1",
    ]


def test_a_gate_shows_what_it_reads_and_how_much_evidence_there_is() -> None:
    rows = [cells(line) for line in lines(DOCUMENT) if line.startswith("│")]
    assert rows[0] == ["ttft_p95_ratio", "wait", "2.5", "5", "750", "120", "0", "50", "[evidence] 1.2 of 2.3"]
    assert rows[1] == ["hang", "wait", "-", "5", "750", "120", "50", "-", ""]


def test_what_a_rollout_waits_for_is_said_before_the_gates() -> None:
    waiting, passed = ({**SPLIT, "readings": [GATE, {**LOAD_TEST, "verdict": verdict}]} for verdict in ("wait", "promote"))
    said = "  waits for load test smoke: no result has been published"
    found = lines({**DOCUMENT, "splits": [waiting]})
    assert found.index(said) == next(i for i, line in enumerate(found) if "verdict: wait" in line) + 1
    assert said not in lines({**DOCUMENT, "splits": [passed]})


def test_a_variant_shows_its_last_minute() -> None:
    rows = [cells(line) for line in lines(DOCUMENT) if line.startswith("│")]
    assert rows[2] == ["canary", "60", "1.25", "250/500", "10.5/-", "4"]


def test_shadows_the_table_and_the_other_splits_follow() -> None:
    assert lines(DOCUMENT)[-3:] == [
        "  shadow next: 50 copied, 2 dropped, 1 failed; 95 % of 40 compared agree, mean similarity 0.980",
        "docs: v1 has every conversation",
        "traffic table 7 is in force on 1 of 2 Routers",
    ]


def test_copies_that_are_not_compared_have_no_agreement() -> None:
    document = DOCUMENT | {"shadows": [COPIES | {"compared": 0, "agreement_ratio": None, "mean_similarity": None}]}
    assert lines(document)[-3] == "  shadow next: 50 copied, 2 dropped, 1 failed"


def test_a_refused_configuration_comes_first() -> None:
    assert lines(DOCUMENT | {"refused": "the configuration was refused"})[0] == "REFUSED: the configuration was refused"


def test_a_withdrawn_variant_is_called_so() -> None:
    split = SPLIT | {"phase": "rolled_back", "weights": {"stable": 100, "canary": 0}, "withdrawn": ["canary"]}
    assert lines(DOCUMENT | {"splits": [split]})[:2] == [
        "chat: rolled_back, since 3m 10s",
        "  weights: stable 100 % (declared 90), canary 0 % (declared 10, withdrawn); baseline stable",
    ]


@pytest.mark.parametrize(
    ("split", "said"),
    [
        pytest.param({"phase": "waiting", "step": -1}, "waiting, before the first of 2 steps, for 3m 10s", id="waiting"),
        pytest.param({"phase": "completed"}, "completed, since 3m 10s", id="over"),
        pytest.param({"phase": None, "step": None}, "no rollout, the declared weights are in force", id="none"),
    ],
)
def test_the_headline_fits_the_phase(split: dict[str, Any], said: str) -> None:
    assert headline(SPLIT | split, now_s=NOW_S) == said


@pytest.mark.parametrize(("seconds", "said"), [(-1, "0s"), (60, "1m"), (3671, "1h 1m"), (90_000, "1d 1h")])
def test_a_span_has_its_two_greatest_units(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_weights_that_moved_say_where_from() -> None:
    assert changes({"a": 90, "b": 10}, {"a": 80, "b": 10, "c": 10}) == "a 90 -> 80, b 10, c 10"


@pytest.mark.parametrize("arguments", [(), ("chat",)], ids=["all", "one"])
def test_status_shows_all_or_one(asked: list[str], arguments: tuple[str, ...]) -> None:
    result = manta("status", *arguments)
    assert (result.exit_code, asked) == (0, ["/".join(("GET /admin/rollouts", *arguments))])
    assert ("docs: v1 has" in result.stdout, "chat: running" in result.stdout) == (not arguments, True)


def test_json_is_what_the_platform_says(asked: list[str]) -> None:
    assert json.loads(manta("status", "--json").stdout) == DOCUMENT
    assert json.loads(manta("history", "chat", "--json", "--limit", "1").stdout) == {"decisions": [MADE]}


def test_history_says_when_what_why_and_who(asked: list[str]) -> None:
    rows = [cells(line) for line in manta("history", "chat").stdout.splitlines() if line.startswith("│")]
    assert rows == [
        ["1970-01-01 23:59:59", "advanced", "stable 100, canary 0", "every gate has passed", "Manta"],
        ["1970-01-01 00:00:00", "aborted", "stable 75 -> 100, canary 25 -> 0", "", "ann"],
    ]


@pytest.mark.parametrize(
    ("arguments", "verb"),
    [
        (("pause",), "pause"),
        (("resume",), "resume"),
        (("promote",), "promote"),
        (("promote", "--full"), "promote-fully"),
        (("restart",), "restart"),
        (("abort",), "abort"),
    ],
)
def test_a_command_is_sent_and_says_what_is_in_force(asked: list[str], arguments: tuple[str, ...], verb: str) -> None:
    result = manta(*arguments, "chat")
    assert (result.exit_code, asked) == (0, [f"POST /admin/rollouts/chat/{verb}"])
    assert result.stdout == "chat: aborted; in force: stable 100 %, canary 0 % (phase aborted)\n"


def test_a_name_cannot_leave_its_place_in_the_path(asked: list[str]) -> None:
    manta("pause", "a/b?c")
    assert asked == ["POST /admin/rollouts/a%2Fb%3Fc/pause"]


def test_abort_asks_on_a_terminal(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.confirm", lambda question: False)
    with pytest.raises(CommandError, match="nothing was changed"):
        rollout.abort("chat", url="http://platform", is_sure=False)
    assert asked == []
    monkeypatch.setattr("typer.confirm", lambda question: True)
    rollout.abort("chat", url="http://platform", is_sure=False)
    assert asked == ["POST /admin/rollouts/chat/abort"]


def test_what_the_platform_refuses_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = httpx.Response(409, json={"error": {"message": "'docs' has no rollout"}})
    monkeypatch.setattr(rollout, "connect", lambda url: client(lambda _: refusal))
    result = manta("pause", "docs")
    assert (type(result.exception), str(result.exception)) == (CommandError, "'docs' has no rollout")


def test_watching_shows_tables_only(asked: list[str]) -> None:
    assert "leave --json out" in str(manta("status", "--watch", "--json").exception)


def test_watch_is_an_option_of_status(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "keep_showing", lambda look, console: console.print(look()))
    result = manta("status", "--watch", "chat")
    assert (result.exit_code, asked) == (0, ["GET /admin/rollouts/chat"])
    assert "chat: running" in result.stdout
