from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from benchmarks.data_path.contracts import Endpoint, FakeSpec, Load
from benchmarks.data_path.native import (
    NativeError,
    build,
    compiler,
    engine_stats,
    fake_engine,
    load_report,
    reset_engine_stats,
    run_load,
)

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")

FAST = FakeSpec(ttft_ms=5, itl_ms=1)
TOKENS = 4
# Each user's one stream and then the end: nothing depends on how fast the machine is.
ONE_EACH = ("--hold", "--timeout-s", "20")
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
Handler = Callable[[socket.socket], None]


def load(*, concurrency: int | None = 1, tokens: int = TOKENS, stream: bool = True) -> Load:
    return Load("test", duration_s=0.2, warmup_s=0, concurrency=concurrency, tokens=tokens, stream=stream)


def event(content: str) -> str:
    return f'data: {{"choices": [{{"delta": {{"content": "{content}"}}}}]}}'


def chunked(pieces: Sequence[str]) -> str:
    return "".join(f"{len(piece):x}\r\n{piece}\r\n" for piece in pieces) + "0\r\n\r\n"


@contextmanager
def served(handle: Handler) -> Iterator[Endpoint]:
    """A server that hands each connection to ``handle``, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if not connection.recv(65536):
                        return
                    handle(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield Endpoint("127.0.0.1", port, "m")
        finally:
            socket.create_connection(("127.0.0.1", port)).close()  # an empty connection ends the thread
            thread.join()


def answering(text: str) -> Handler:
    return lambda connection: connection.sendall(text.encode())


def send_byte_by_byte(connection: socket.socket, text: str) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in text.encode():
        connection.send(bytes([byte]))


def ask(endpoint: Endpoint, request: str) -> bytes:
    """Send raw bytes and return all that comes until the engine closes."""
    with socket.create_connection((endpoint.host, endpoint.port), timeout=10) as connection:
        connection.sendall(request.encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_no_token_leaves_before_its_time() -> None:
    with fake_engine(FakeSpec(ttft_ms=40, itl_ms=20)) as endpoint:
        seen = load_report(endpoint, load(concurrency=3), extra=ONE_EACH).measurement
    assert (seen.requests, seen.errors) == (3, {})
    assert seen.ttft_ms.p50 >= 39
    assert seen.e2e_ms.p50 >= 99


def test_every_token_is_one_event_and_the_engine_counts_the_same() -> None:
    with fake_engine(FAST) as endpoint:
        seen = run_load(endpoint, load(concurrency=8), extra=["--any-length"])
        stats = engine_stats(endpoint)
        reset_engine_stats(endpoint)
        after = engine_stats(endpoint)
    assert seen.errors == {}
    assert stats.requests * TOKENS == stats.tokens >= seen.tokens > 0
    assert (stats.max_open, stats.aborted, after.requests, after.tokens) == (8, 0, 0, 0)


def test_completions_stream_too() -> None:
    with fake_engine(FAST) as endpoint:
        seen = run_load(endpoint, load(), path="/v1/completions", extra=ONE_EACH)
    assert (seen.requests, seen.errors) == (1, {})


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"], ids=["lf", "crlf"])
def test_content_is_found_when_chunks_and_reads_cut_anywhere(end: str) -> None:
    stream = "".join(event(content) + end for content in ("", "a", 'quote \\" in it', "b")) + "data: [DONE]" + end
    text = HEAD + "Transfer-Encoding: chunked\r\n\r\n" + chunked([stream[i : i + 7] for i in range(0, len(stream), 7)])
    with served(lambda connection: send_byte_by_byte(connection, text)) as endpoint:
        seen = run_load(endpoint, load(tokens=3), extra=ONE_EACH)
    assert (seen.requests, seen.errors) == (1, {})


def test_events_of_one_read_have_gaps_of_zero_after_the_first() -> None:
    stream = "".join(event(content) + "\n\n" for content in "abcd") + "data: [DONE]\n\n"
    text = HEAD + "Transfer-Encoding: chunked\r\n\r\n" + chunked([stream])
    with served(answering(text)) as endpoint:
        report = load_report(endpoint, load(concurrency=1), extra=["--duration", "0.05"])
    assert report.coalesced == 3 * report.measurement.requests > 0
    assert report.measurement.itl_ms.max == 0


BODY = event("a") + "\n\n" + event("b") + "\n\n"
DONE = "data: [DONE]\n\n"
CLOSES = HEAD + "Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "errors"),
    [
        pytest.param(CLOSES + BODY + DONE, {}, id="whole-until-the-connection-closes"),
        pytest.param(f"{HEAD}Content-Length: {len(BODY + DONE)}\r\n\r\n{BODY}{DONE}", {}, id="whole-with-a-length"),
        pytest.param(CLOSES + BODY, {"cut": 1}, id="closed-before-done"),
        pytest.param(HEAD + "Transfer-Encoding: chunked\r\n\r\n" + chunked([BODY])[:-9], {"cut": 1}, id="closed-in-a-chunk"),
        pytest.param(HEAD + "Transfer-Encoding: chunked\r\n\r\n" + chunked([BODY]), {"cut": 1}, id="ended-without-done"),
        pytest.param(CLOSES + event("a") + "\n\n" + DONE, {"short": 1}, id="a-token-is-missing"),
        pytest.param(CLOSES + BODY + 'data: {"error": {"code": 500}}\n\n' + DONE, {"error_event": 1}, id="error-in-the-stream"),
        pytest.param("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno", {"status_503": 1}, id="wrong-status"),
        pytest.param("HTTP/1.1 100 Continue\r\n\r\n" + CLOSES + BODY + DONE, {}, id="interim-answer-first"),
        pytest.param(HEAD + "Transfer-Encoding: chunked\r\n\r\nnot hex\r\n", {"protocol": 1}, id="malformed-chunk"),
        pytest.param("", {"cut": 1}, id="closed-without-an-answer"),
    ],
)
def test_verdict_on_an_answer(answer: str, errors: dict[str, int]) -> None:
    with served(answering(answer)) as endpoint:
        seen = run_load(endpoint, load(tokens=2), extra=ONE_EACH)
    assert (seen.requests, seen.errors) == (0 if errors else 1, errors)


def test_refused_connection_is_a_connect_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert run_load(Endpoint("127.0.0.1", port, "m"), load(), extra=ONE_EACH).errors == {"connect": 1}


def test_silent_server_is_a_timeout() -> None:
    def wait_for_the_client_to_leave(connection: socket.socket) -> None:
        connection.recv(1)

    with served(wait_for_the_client_to_leave) as endpoint:
        seen = run_load(endpoint, load(), extra=["--hold", "--timeout-s", "0.05"])
    assert seen.errors == {"timeout": 1}


def test_answer_without_stream_counts_its_tokens() -> None:
    with fake_engine(FAST) as endpoint:
        seen = run_load(endpoint, load(stream=False), extra=["--any-length"])
    assert seen.errors == {}
    assert seen.tokens % TOKENS == 0 < seen.requests
    assert math.isnan(seen.itl_ms.p50)
    assert seen.e2e_ms.p50 >= FAST.ttft_ms + FAST.itl_ms * (TOKENS - 1) - 1


def test_slots_make_requests_wait() -> None:
    with fake_engine(FakeSpec(ttft_ms=30, itl_ms=0), slots=1) as endpoint:
        seen = run_load(endpoint, load(concurrency=3), extra=ONE_EACH)
    assert seen.errors == {}
    assert seen.ttft_ms.max >= 85  # third in the queue


def test_client_that_leaves_is_noticed_and_counted() -> None:
    body = json.dumps({"messages": [], "stream": True, "max_tokens": 100_000})
    request = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    with fake_engine(FakeSpec(ttft_ms=60_000)) as endpoint:
        with socket.create_connection((endpoint.host, endpoint.port)) as connection:
            connection.sendall(request.encode())
            wait_until(lambda: engine_stats(endpoint).open == 1)
        wait_until(lambda: engine_stats(endpoint).aborted == 1)
        assert engine_stats(endpoint).open == 0


def test_request_body_in_chunks_cut_anywhere() -> None:
    body = json.dumps({"prompt": "x" * 50, "max_tokens": 2})
    chunks = chunked([body[i : i + 5] for i in range(0, len(body), 5)])
    head = "POST /v1/completions?a=b HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with (
        fake_engine(FAST) as endpoint,
        socket.create_connection((endpoint.host, endpoint.port), timeout=10) as connection,
    ):
        send_byte_by_byte(connection, head + chunks)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b" tok0000 tok0001" in answer


def test_a_second_request_sent_early_is_answered_after_the_first() -> None:
    body = json.dumps({"prompt": "x", "max_tokens": 1})
    first = f"POST /v1/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    with fake_engine(FAST) as endpoint:
        answer = ask(endpoint, first + "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.index(b" tok0000") < answer.index(b"text/plain")


def test_client_that_expects_it_is_told_to_continue() -> None:
    head = "POST /v1/completions HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with (
        fake_engine(FAST) as endpoint,
        socket.create_connection((endpoint.host, endpoint.port), timeout=10) as connection,
    ):
        connection.sendall(head.encode())
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "request_text",
    [
        pytest.param("hello\r\n\r\n", id="no-http"),
        pytest.param("POST /v1/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n", id="no-number"),
        pytest.param("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="no-chunk"),
        pytest.param("POST /v1/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", id="no-prompt"),
    ],
)
def test_malformed_request_is_refused_and_the_connection_closed(request_text: str) -> None:
    with fake_engine(FAST) as endpoint:
        assert ask(endpoint, request_text).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_old_http_gets_a_stream_without_chunks() -> None:
    body = json.dumps({"messages": [], "stream": True, "max_tokens": 2})
    with fake_engine(FAST) as endpoint:
        answer = ask(endpoint, f"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    head, _, stream = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert [line[:5] for line in stream.split(b"\n\n")] == [b"data:"] * 5 + [b""]


def test_openai_sdk_streams_from_the_engine() -> None:
    with (
        fake_engine(FAST, model="tiny") as endpoint,
        openai.OpenAI(base_url=f"http://127.0.0.1:{endpoint.port}/v1", api_key="none") as client,
    ):
        assert [model.id for model in client.models.list()] == ["tiny"]
        chunks = list(
            client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "hi"}],
                max_tokens=3,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    contents = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert contents == ["", " tok0000", " tok0001", " tok0002", ""]
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_a_stream_counts_its_tokens_when_it_is_asked_to() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    with (
        fake_engine(FAST) as endpoint,
        openai.OpenAI(base_url=f"http://127.0.0.1:{endpoint.port}/v1", api_key="none") as client,
    ):
        stream = client.completions.create(
            model="fake", prompt="hi", max_tokens=3, stream=True, extra_body={"stream_options": options}
        )
        chunks = list(stream)
    told = [(chunk.choices[0].text, chunk.usage.completion_tokens) for chunk in chunks if chunk.choices and chunk.usage]
    assert told == [(" tok0000", 1), (" tok0001", 2), (" tok0002", 3)]


def test_openai_sdk_reads_a_whole_answer() -> None:
    with (
        fake_engine(FAST) as endpoint,
        openai.OpenAI(base_url=f"http://127.0.0.1:{endpoint.port}/v1", api_key="none") as client,
    ):
        answer = client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "hi"}], max_tokens=2)
    assert answer.choices[0].message.content == " tok0000 tok0001"


def test_open_loop_counts_from_the_intended_start() -> None:
    # One connection, answers of at least 100 ms, arrivals every 10 ms: who waits for the connection has waited too.
    with fake_engine(FakeSpec(ttft_ms=100, itl_ms=0)) as endpoint:
        open_loop = Load("r", duration_s=0.3, warmup_s=0, rate_per_s=100, tokens=1)
        report = load_report(endpoint, open_loop, extra=["--max-open", "1", "--grace-s", "0.7"])
    assert report.open_max == 1
    assert report.waiting_max > 5
    assert report.measurement.ttft_ms.max > 290


def test_open_loop_has_the_same_arrivals_for_the_same_seed() -> None:
    with fake_engine(FAST) as endpoint:
        open_loop = Load("r", duration_s=0.3, warmup_s=0, rate_per_s=100, tokens=1, seed=7)
        counts = {run_load(endpoint, open_loop).requests for _ in range(2)}
    assert len(counts) == 1
    assert counts.pop() > 5


def test_cached_prefix_is_not_prefilled_again() -> None:
    prompt = "once upon a time " * 200
    question = Load("p", duration_s=1, concurrency=1, tokens=1, prompt=prompt)
    with fake_engine(FakeSpec(ttft_ms=0, itl_ms=0), prefill_us_per_char=50, cache_chars=100_000) as endpoint:
        first = run_load(endpoint, question, extra=ONE_EACH)
        second = run_load(endpoint, question, extra=ONE_EACH)
        stats = engine_stats(endpoint)
    assert first.ttft_ms.p50 > 50e-3 * len(prompt)
    assert second.ttft_ms.p50 < first.ttft_ms.p50
    assert stats.prompt_chars / 2 - 64 <= stats.cached_chars < stats.prompt_chars / 2


def test_full_prefix_cache_forgets_the_least_recently_used_prompt() -> None:
    with fake_engine(FakeSpec(ttft_ms=0, itl_ms=0), cache_chars=1280) as endpoint:
        for letter in "aba":
            run_load(endpoint, Load("p", duration_s=1, concurrency=1, tokens=1, prompt=letter * 2000), extra=ONE_EACH)
        assert engine_stats(endpoint).cached_chars == 0


def test_held_streams_are_measured_while_all_of_them_stream() -> None:
    with fake_engine(FakeSpec(ttft_ms=5, itl_ms=20)) as endpoint:
        report = load_report(endpoint, load(concurrency=50, tokens=40), extra=[*ONE_EACH, "--ramp-s", "0.05"])
    assert report.streaming_max == 50
    assert report.measurement.requests == 50
    assert 0 < report.measurement.tokens <= 50 * 40
    assert report.measurement.seconds > 0


def test_bodies_of_a_file_go_round(tmp_path: Path) -> None:
    bodies = tmp_path / "bodies.jsonl"
    bodies.write_text("".join(json.dumps({"prompt": "x" * n, "max_tokens": n, "stream": True}) + "\n" for n in (1, 2)))
    with fake_engine(FAST) as endpoint:
        seen = run_load(endpoint, load(concurrency=4), path="/v1/completions", extra=[*ONE_EACH, "--bodies-file", str(bodies)])
        assert engine_stats(endpoint).tokens == 2 * 1 + 2 * 2
    assert (seen.requests, seen.errors) == (4, {})


def test_series_has_a_line_for_each_second(tmp_path: Path) -> None:
    series = tmp_path / "series.jsonl"
    with fake_engine(FAST) as endpoint:
        run_load(endpoint, load(), extra=["--duration", "1.1", "--series", str(series)])
    first = json.loads(series.read_text().splitlines()[0])
    assert first["tokens"] > 0
    assert (first["t_s"], first["open"], first["errors"]) == (0, 1, 0)


def test_failing_client_says_why() -> None:
    with pytest.raises(NativeError, match="either --concurrency"):
        run_load(Endpoint("127.0.0.1", 1, "m"), load(concurrency=None))


def test_missing_compiler_names_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.data_path.native.BUILDS", tmp_path)
    monkeypatch.setattr("benchmarks.data_path.native.compiler", lambda: None)
    with pytest.raises(NativeError, match="apt-get install gcc"):
        build("engine")
