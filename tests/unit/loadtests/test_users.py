from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import gevent
import pytest

from loadtests.recorder import Recorder
from loadtests.scenario import Entry
from loadtests.tally import Tally
from loadtests.users.dispatch import dispatch
from loadtests.users.kinds import perform
from loadtests.users.session import Place, Session, Task
from tests.unit.loadtests.fakes import scenario, session_of
from tests.unit.loadtests.servers import DONE, USAGE, Script, answered, content, sending, serving, streamed

STABLE = "x-manta-model: chat\r\nx-manta-variant: stable\r\n"
LENGTHS = {"prompt": {"tokens": 5}, "output": {"tokens": 2}}
ANSWER = streamed(content("a"), content("b"), USAGE, DONE, headers=STABLE)


def performed(script: Script, entry: dict[str, Any], **fields: Any) -> tuple[Tally, Entry]:
    """Return what was counted of one thing done."""
    with serving(script) as url:
        asked = scenario(mix=[entry], target={"url": url, "timeout": 5}, **fields)
        session = session_of(asked)
        perform(session, asked.mix[0], Task(time.perf_counter(), random.Random(1)))
        session.http.close()
    return session.recorder.take(), asked.mix[0]


def noting(bodies: list[dict[str, Any]], *pieces: bytes) -> Script:
    def script(sock: Any, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        bodies.append({**json.loads(body), "path": head.split()[1].decode(), "head": head.decode()})
        for piece in pieces:
            sock.sendall(piece)

    return script


def test_a_chat_is_counted_with_its_tokens_and_its_variant() -> None:
    bodies: list[dict[str, Any]] = []
    entry = {"kind": "chat", "model": "chat", "lengths": LENGTHS, "shared_prefix_tokens": 10, "temperature": 0}
    made, _ = performed(noting(bodies, *ANSWER), entry)
    cell = made.entries["chat"]
    assert dict(cell.outcomes) == {"ok": 1}
    assert {name: cell.totals[name] for name in ("streams", "tokens", "prompt_tokens", "pieces")} == {
        "streams": 1,
        "tokens": 2,
        "prompt_tokens": 9,
        "pieces": 2,
    }
    assert made.shares["chat", "stable"].firsts == 1
    [body] = bodies
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert {name: body[name] for name in ("stream", "max_tokens", "temperature", "ignore_eos")} == {
        "stream": True,
        "max_tokens": 2,
        "temperature": 0,
        "ignore_eos": True,
    }


def test_a_whole_answer_has_no_time_to_first_token() -> None:
    body = {"choices": [{"message": {"content": "a b"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
    entry = {"kind": "chat", "model": "chat", "stream": False}
    made, _ = performed(sending(answered(json.dumps(body).encode())), entry)
    cell = made.entries["chat"]
    assert (cell.outcomes["ok"], cell.totals["tokens"], cell.times["ttft"].count, cell.times["e2e"].count) == (1, 2, 0, 1)


def test_a_completion_has_one_prompt() -> None:
    bodies: list[dict[str, Any]] = []
    pieces = streamed(b'data: {"choices": [{"text": "a"}]}\n\n', DONE)
    entry = {"kind": "completion", "model": "chat", "shared_prefix_tokens": 4, "lengths": LENGTHS}
    made, _ = performed(noting(bodies, *pieces), entry)
    assert made.entries["completion"].totals["tokens"] == 1
    assert bodies[0]["path"] == "/v1/completions"
    assert bodies[0]["prompt"].startswith("Call me Ishmael.")


def test_embeddings_are_asked_for_in_batches() -> None:
    bodies: list[dict[str, Any]] = []
    entry = {"kind": "embedding", "model": "minilm", "batch": 3, "lengths": {"prompt": {"tokens": 5}}}
    made, _ = performed(noting(bodies, answered(b'{"usage": {"prompt_tokens": 15}}')), entry)
    assert (made.entries["embedding"].totals["prompt_tokens"], len(bodies[0]["input"])) == (15, 3)


def test_a_pipelines_version_is_what_answered() -> None:
    headers = f"{STABLE}x-manta-pipeline-version: v2\r\n"
    cited = b'data: {"choices": [{"delta": {}}], "citations": [{"text": "x"}]}\n\n'
    bodies: list[dict[str, Any]] = []
    entry = {"kind": "rag", "model": "docs", "questions": ["Why?"], "top_k": 3}
    made, _ = performed(noting(bodies, *streamed(content("a"), cited, DONE, headers=headers)), entry)
    assert list(made.shares) == [("docs", "v2")]
    assert made.entries["rag"].totals["cited"] == 1
    assert bodies[0]["messages"] == [{"role": "user", "content": "Why?"}]
    assert bodies[0]["retrieval"] == {"top_k": 3}


def test_every_turn_of_a_conversation_sends_what_was_said_and_its_session() -> None:
    bodies: list[dict[str, Any]] = []
    entry = {"kind": "conversation", "model": "chat", "turns": 3, "think": 0, "lengths": LENGTHS}
    made, _ = performed(noting(bodies, *ANSWER), entry)
    assert [[message["role"][0] for message in body["messages"]] for body in bodies] == [["u"], list("uau"), list("uauau")]
    assert bodies[2]["messages"][:3] == bodies[1]["messages"]
    assert bodies[1]["messages"][1]["content"] == "ab"
    assert len({line for body in bodies for line in body["head"].split("\r\n") if line.startswith("x-session-id")}) == 1
    assert (made.shares["chat", "stable"].firsts, made.shares["chat", "stable"].flips) == (1, 0)


def test_a_turn_that_another_variant_answers_is_noted() -> None:
    variants = iter(["stable", "canary"])

    def script(sock: Any, _: bytes) -> None:
        headers = f"x-manta-model: chat\r\nx-manta-variant: {next(variants)}\r\n"
        sock.sendall(b"".join(streamed(content("a"), DONE, headers=headers)))

    made, _ = performed(script, {"kind": "conversation", "model": "chat", "turns": 2, "think": 0, "lengths": LENGTHS})
    assert {variant: share.flips for (_, variant), share in made.shares.items()} == {"stable": 0, "canary": 1}


def test_a_conversation_ends_with_an_answer_that_fails() -> None:
    made, _ = performed(sending(answered(b"{}", status="500 No")), {"kind": "conversation", "model": "chat", "turns": 5})
    assert dict(made.entries["conversation"].outcomes) == {"server_error": 1}


def limited(times: int) -> Script:
    left = iter(range(times))

    def script(sock: Any, _: bytes) -> None:
        if next(left, None) is None:
            sock.sendall(b"".join(ANSWER))
        else:
            sock.sendall(answered(b"{}", status="429 Wait", headers="retry-after: 0.05\r\n"))

    return script


CHAT = {"kind": "chat", "model": "chat", "lengths": LENGTHS}


def test_a_429_is_a_failure_of_its_class_unless_it_is_honoured() -> None:
    made, _ = performed(limited(1), CHAT)
    assert dict(made.entries["chat"].outcomes) == {"rate_limited": 1}


def test_retry_after_is_waited_for_and_the_clock_runs_on() -> None:
    made, _ = performed(limited(2), CHAT, retry={"honour": "retry-after", "attempts": 3})
    cell = made.entries["chat"]
    assert (dict(cell.outcomes), cell.totals["limited"], cell.messages) == ({"ok": 1}, 2, {})
    assert cell.times["ttft"].least_s > 0.1


@pytest.mark.parametrize(
    "retry",
    [
        pytest.param({"honour": "retry-after", "attempts": 2}, id="too-often"),
        pytest.param({"honour": "retry-after", "attempts": 9, "longest": 0.01}, id="too-long"),
    ],
)
def test_patience_ends(retry: dict[str, Any]) -> None:
    made, _ = performed(limited(99), CHAT, retry=retry)
    assert made.entries["chat"].outcomes == {"rate_limited": 1}


def test_what_is_open_at_the_end_is_unfinished() -> None:
    with serving(sending(*streamed(content("a"), is_whole=False), every_s=0.0)) as url:
        asked = scenario(target={"url": url})
        session = session_of(asked)
        gevent.spawn(perform, session, asked.mix[0], Task(time.perf_counter(), random.Random(1)))
        gevent.sleep(0.05)
        session.is_over = True
        assert session.open_requests == 1
        assert session.drain(0.01) == 1
    cell = session.recorder.take().entries["chat"]
    assert dict(cell.outcomes) == {"unfinished": 1}
    assert (cell.times["ttft"].count, cell.times["e2e"].endless) == (1, 1)


def test_the_end_waits_for_what_is_open() -> None:
    with serving(sending(*ANSWER, every_s=0.01)) as url:
        asked = scenario(target={"url": url})
        session = session_of(asked)
        cleaned: list[str] = []
        session.at_end.append(lambda: cleaned.append("up"))
        gevent.spawn(perform, session, asked.mix[0], Task(time.perf_counter(), random.Random(1)))
        gevent.sleep(0)
        assert session.drain(5.0) == 0
    assert dict(session.recorder.take().entries["chat"].outcomes) == {"ok": 1}
    assert cleaned == ["up"]


def dispatched(script: Script, workers: int, number: int, **fields: Any) -> Tally:
    with serving(script) as url:
        asked = scenario(target={"url": url}, duration=0.5, mix=[CHAT], **fields)
        begin_s = time.perf_counter()
        recorder = Recorder(asked, begin_s, lambda _: None)
        session = Session(asked, recorder, begin_s=begin_s, place=Place(number, workers), api_key=None)
        dispatch(session, Path())
        session.http.close()
        return recorder.take()


EVEN = {"mode": "open", "shape": {"kind": "constant", "level": 40, "cv": 0}}


def test_workers_share_the_schedule() -> None:
    seen = [dispatched(sending(*ANSWER), 3, number, load=EVEN).entries["chat"].totals["requests"] for number in range(3)]
    assert seen == [7, 7, 6]


def test_an_open_loop_does_not_wait_for_answers() -> None:
    """Twenty requests are due in half a second; each takes longer than that, and all are sent nevertheless."""

    def slow(sock: Any, _: bytes) -> None:
        gevent.sleep(0.6)
        sock.sendall(b"".join(ANSWER))

    made = dispatched(slow, 1, 0, load=EVEN)
    assert made.entries["chat"].totals["requests"] == 20


def test_waiting_for_a_connection_counts() -> None:
    """With one request open at a time the queue is ours, and still in the figures."""

    def slow(sock: Any, _: bytes) -> None:
        gevent.sleep(0.05)
        sock.sendall(b"".join(ANSWER))

    with serving(slow) as url:
        asked = scenario(target={"url": url, "max_open": 1}, duration=0.5, mix=[CHAT], load=EVEN)
        begin_s = time.perf_counter()
        session = Session(asked, Recorder(asked, begin_s, lambda _: None), begin_s=begin_s, place=Place(0, 1), api_key=None)
        dispatch(session, Path())
        session.http.close()
    times = session.recorder.take().entries["chat"].times
    assert times["ttft"].greatest_s > 0.4  # twenty at 20 a second, due within half a second
    assert times["late"].greatest_s > 0.35


def test_a_run_that_is_over_sends_nothing_more() -> None:
    with serving(sending(*ANSWER)) as url:
        asked = scenario(target={"url": url}, load=EVEN)
        session = session_of(asked)
        session.is_over = True
        dispatch(session, Path())
    assert session.recorder.take().entries == {}
    assert (session.claim_dispatch(), session.claim_dispatch()) == (True, False)
