"""Whatever a replica sends or stops sending, its client gets an end, others are served, and nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import gzip
import random
import tracemalloc

import pytest

from serve_app import exchange as exchange_module
from tests.unit.serve_app.malice import (
    BODY,
    CHUNKED,
    DONE,
    EVENTS,
    JSON,
    LINE,
    STREAM,
    TOKEN,
    WHOLE,
    Server,
    assert_answered,
    assert_complete,
    chunked,
    site,
    sized,
)

NOBODY = (503, 504)  # no replica, or none within the time limit
OK = b"Content-Length: 2\r\n\r\n{}"
HEADS = {
    "nothing": b"",
    "blank-lines": b"\r\n" * 500,
    "many-blank-lines": b"\r\n" * 200_000,
    "half-a-status-line": b"HTTP/1.1 2",
    "half-a-head": LINE + b"Content-Type: text/ev",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "tls-alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "http-2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http-2-frame": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18),
    "http-0.9": BODY,
    "version-0.9": b"HTTP/0.9 200 OK\r\n\r\n" + BODY,
    "version-2.0": b"HTTP/2.0 200 OK\r\n" + OK,
    "version-9.9": b"HTTP/9.9 200 OK\r\n" + OK,
    "a-request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "status-000": b"HTTP/1.1 000 X\r\n" + OK,
    "status-099": b"HTTP/1.1 099 X\r\n" + OK,
    "status-600": b"HTTP/1.1 600 X\r\n" + OK,
    "status-999": b"HTTP/1.1 999 X\r\n" + OK,
    "status-20": b"HTTP/1.1 20 X\r\n" + OK,
    "status-2000": b"HTTP/1.1 2000 X\r\n" + OK,
    "status-minus": b"HTTP/1.1 -20 X\r\n" + OK,
    "upgrade": b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x05hello",
    "upgrade-unnamed": b"HTTP/1.1 101 X\r\n\r\n" + WHOLE,
    "no-content-204": b"HTTP/1.1 204 X\r\n" + OK,
    "not-modified-304": b"HTTP/1.1 304 X\r\n" + OK,
    "reset-content-205": b"HTTP/1.1 205 X\r\nContent-Length: 0\r\n\r\n",
    "partial-206": b'HTTP/1.1 206 X\r\nContent-Length: 4\r\n\r\n{"a"',
    "redirect": b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "interim-flood": b"HTTP/1.1 103 X\r\nLink: x\r\n\r\n" * 5000,
    "interim-only": b"HTTP/1.1 100 Continue\r\n\r\n",
    "interim-then-answer": b"HTTP/1.1 103 X\r\nLink: x\r\n\r\n" + WHOLE,
    "negative-length": JSON + b"Content-Length: -2\r\n\r\n{}",
    "plus-length": JSON + b"Content-Length: +2\r\n\r\n{}",
    "hex-length": JSON + b"Content-Length: 0x2\r\n\r\n{}",
    "list-length": JSON + b"Content-Length: 2, 2\r\n\r\n{}",
    "empty-length": JSON + b"Content-Length: \r\n\r\n{}",
    "huge-length": JSON + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "length-never-reached": JSON + b"Content-Length: 9999\r\n\r\n{}",
    "same-length-twice": JSON + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two-lengths": JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length-and-chunks": EVENTS + b"Content-Length: 2\r\n" + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
    "chunks-and-length": EVENTS + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "gzip-in-chunks": EVENTS + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks-in-gzip": EVENTS + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "unknown-coding": EVENTS + b"Transfer-Encoding: x\r\n\r\n{}",
    "gzip": sized(gzip.compress(BODY), JSON + b"Content-Encoding: gzip\r\n"),
    "gzip-stream": chunked(gzip.compress(TOKEN + DONE), head=EVENTS + b"Content-Encoding: gzip\r\n"),
    "nul-in-a-header": JSON + b"X: a\0b\r\n" + OK,
    "bare-cr": JSON + b"X: a\rb\r\n" + OK,
    "bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "folded-header": JSON + b"X: a\r\n b\r\n" + OK,
    "space-before-colon": JSON + b"X : a\r\n" + OK,
    "no-name": JSON + b": a\r\n" + OK,
    "no-colon": JSON + b"abc\r\n" + OK,
    "no-ascii-value": JSON + b"X: \xff\xfe\r\n" + OK,
    "no-ascii-name": JSON + b"\xff: a\r\n" + OK,
    "no-ascii-content-type": LINE + b"Content-Type: \xff\xfe\r\n" + OK,
    "endless-content-type": LINE + b"Content-Type: application/json; a=" + b"b" * 9000 + b"\r\n" + OK,
    "two-content-types": JSON + b"Content-Type: text/event-stream\r\n" + OK,
    "shouted-content-type": chunked(TOKEN, DONE, head=LINE + b"CONTENT-TYPE: TEXT/EVENT-STREAM\r\n"),
    "many-headers": JSON + b"".join(b"X%d: y\r\n" % i for i in range(5000)) + OK,
    "endless-header": JSON + b"X: " + b"y" * 1_000_000,
    "endless-header-name": JSON + b"x" * 1_000_000,
    "endless-reason": b"HTTP/1.1 200 " + b"x" * 1_000_000,
}
BODIES = {
    "empty": sized(b""),
    "half-json": JSON + b"Connection: close\r\n\r\n" + BODY[:9],
    "half-json-with-length": sized(BODY[:9]),
    "two-answers": WHOLE + WHOLE,
    "answer-and-a-half": WHOLE + WHOLE[:20],
    "bytes-after-the-end": WHOLE + b"\0\0\0",
    "chunk-size-garbage": EVENTS + CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "chunk-size-huge": EVENTS + CHUNKED + b"F" * 40 + b"\r\n{}",
    "chunk-size-negative": EVENTS + CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "chunk-without-its-end": EVENTS + CHUNKED + b"2\r\n{}xx0\r\n\r\n",
    "chunk-size-never-ends": EVENTS + CHUNKED + b"0" * 1_000_000,
    "extension-flood": EVENTS + CHUNKED + b"2;" + b"x" * 1_000_000 + b"\r\n{}\r\n0\r\n\r\n",
    "trailer-flood": chunked(TOKEN, DONE, end=b"0\r\n" + b"X: y\r\n" * 200_000 + b"\r\n"),
    "endless-trailer": chunked(TOKEN, end=b"0\r\nX: " + b"y" * 1_000_000),
    "trailer": chunked(TOKEN, DONE, end=b"0\r\nX: y\r\n\r\n"),
    "no-last-chunk": chunked(TOKEN, DONE, end=b""),
    "no-done": chunked(TOKEN, TOKEN),
    "no-event": chunked(),
    "half-event": chunked(TOKEN, TOKEN[:20]),
    "half-done": chunked(TOKEN, DONE[:9]),
    "done-without-blank-line": chunked(TOKEN, DONE.rstrip() + b"\n\n"),
    "cut-event": chunked(TOKEN, TOKEN[:20], end=b""),
    "cut-chunk": EVENTS + CHUNKED + b"ff\r\n" + TOKEN,
    "events-without-length": EVENTS + b"Connection: close\r\n\r\n" + TOKEN,
    "crlf-events": chunked((TOKEN + DONE).replace(b"\n", b"\r\n")),
    "cr-events": chunked((TOKEN + DONE).replace(b"\n", b"\r")),
    "error-event": chunked(TOKEN, b'data: {"error": {"message": "out of memory"}}\n\n'),
    "binary-events": chunked(bytes(range(256)) * 9),
    "two-streams": STREAM + STREAM,
    "done-twice": chunked(TOKEN, DONE, DONE),
    "events-after-done": chunked(DONE, TOKEN),
    "one-byte-chunks": chunked(*(bytes([byte]) for byte in TOKEN + DONE)),
}
CATALOGUE = {**HEADS, **BODIES}


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("name", list(CATALOGUE))
async def test_a_malicious_answer_hurts_nobody_else(name: str, ending: str) -> None:
    async with site(Server((CATALOGUE[name],), ending)) as made:
        await made.check()


# What is complete, or no answer at all, must not wait for the connection's end; the others wait for what never comes.
SETTLED = sorted(
    set(CATALOGUE)
    - {"nothing", "blank-lines", "half-a-status-line", "half-a-head", "tls-alert", "interim-only", "length-never-reached"}
    - {"http-0.9", "unknown-coding", "half-json", "no-last-chunk", "cut-event", "cut-chunk", "events-without-length"}
    - {"http-2-frame"}
)


@pytest.mark.parametrize("name", SETTLED)
async def test_a_malicious_answer_on_a_connection_that_stays_open_hurts_nobody_else(name: str) -> None:
    async with site(Server((CATALOGUE[name],), "keep")) as made:
        await made.check()


def mutated(good: bytes, chance: random.Random) -> list[bytes]:
    """Return an answer with some of its bytes changed, lost, doubled or made up, in pieces."""
    data = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        length = chance.randint(1, 12)
        match chance.randrange(5):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at:at] = chance.randbytes(length)
            case _:
                del data[at:]
        data = data or bytearray(b"H")
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randint(0, 6)))
    return [bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 24))])
async def test_mutations_of_good_answers_hurt_nobody_else(seed: int, ending: str) -> None:
    chance = random.Random(seed)  # noqa: S311  (the same each time)
    server = Server((), ending)
    async with site(server) as made:
        for _ in range(25):
            good = chance.choice((WHOLE, STREAM))
            server.pieces = mutated(good, chance)
            for stream in (False, True):
                response = await made.ask(stream=stream)
                assert response.status_code < 600
                if response.headers["content-type"].startswith("text/event-stream"):
                    assert_complete(response)
        assert_answered(await made.ask("good", stream=True))
        server.pieces, server.ending = (WHOLE,), "close"
        assert (await made.ask(stream=False)).content == BODY
        assert made.faults == []


@pytest.mark.parametrize("rest", [b"", TOKEN[:20]], ids=["silence", "half-an-event"])
async def test_a_stream_that_stops_in_the_middle_ends_with_its_own_code(rest: bytes) -> None:
    answer = chunked(TOKEN, *([rest] if rest else []), end=b"")
    async with site(Server((answer,), "keep")) as made:
        response = await made.ask(stream=True)
        assert response.content.startswith(TOKEN)
        assert b'"code": "stream_stalled"' in response.content
        await made.check()


async def test_what_trickles_within_one_event_is_no_progress() -> None:
    class Trickling(Server):
        async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.writers.append(writer)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(chunked(TOKEN, b"data: ", end=b""))
            while not writer.transport.is_closing():
                writer.write(b"1\r\nx\r\n")
                await asyncio.sleep(0.02)

    async with site(Trickling()) as made:
        assert b"stream_stalled" in (await made.ask(stream=True)).content


async def test_headers_that_trickle_end_with_their_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "HEAD_S", 0.1)
    async with site(Server((JSON + b"X: y",), "keep")) as made:
        assert (await made.ask(stream=False)).status_code in NOBODY
        assert_answered(await made.ask("good", stream=False))


async def test_an_answer_that_comes_before_its_request_has_left_ends_its_connection() -> None:
    async with site(Server((WHOLE,), "keep", answers_early=True)) as made:
        await made.check()


async def test_an_event_that_never_ends_does_not_grow_without_bound() -> None:
    piece = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
    async with site(Server([chunked(TOKEN, b"data: ", end=b""), *[piece] * 640], "keep"), idle_timeout_s=30.0) as made:
        tracemalloc.start()
        response = await made.ask(stream=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert b'"code": "stream_broken"' in response.content
        assert peak < 60 * 1024 * 1024


async def test_a_whole_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.whole_answer.MOST_WHOLE_BYTES", 100_000)
    async with site(Server((sized(b"[" + b"1," * 90_000 + b"1]"),), "keep")) as made:
        assert (await made.ask(stream=False)).status_code == 500
        assert_answered(await made.ask("good", stream=False))


async def test_a_router_out_of_file_descriptors_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with site(Server((WHOLE,), "keep")) as made:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.get_running_loop(), "create_connection", exhausted)
            for stream in (True, False):
                assert (await made.ask("good", stream=stream)).status_code in NOBODY
        await made.check()
