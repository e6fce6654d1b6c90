from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Self

import pytest

from serve_app.limits.permit import Permit
from serve_app.usage import MeteredStream, completion_tokens, metered, usage_of, with_usage

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
DONE = b"data: [DONE]\n\n"
RAW = b"x" * 400  # an estimate of 100 tokens


class Source:
    """Yields the pieces; an exception among them is raised, and an event never comes."""

    def __init__(self, pieces: Sequence[bytes | BaseException]) -> None:
        self._pieces = list(pieces)
        self.closed = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        return piece

    async def aclose(self) -> None:
        self.closed += 1


class Account:
    """Hears what a permit is charged and when it is released."""

    def __init__(self, *, counts: bool = True) -> None:
        self.charged: list[int] = []
        self.released = 0
        self.permit = Permit(charge=self.charged.append if counts else None, release=self._release)

    def _release(self) -> None:
        self.released += 1


def chunk(text: str | None, usage: tuple[int, int] | None = None, *, index: int = 0, spaced: bool = False) -> bytes:
    """Return a chunk as vLLM 0.29 writes it; without a text the last one, which has no choices."""
    choices = [] if text is None else [{"index": index, "delta": {"content": text}, "finish_reason": None}]
    document: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    if usage is not None:
        prompt, completion = usage
        document["usage"] = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
        document["usage"]["prompt_tokens_details"] = {"cached_tokens": 1}
    separators = (", ", ": ") if spaced else (",", ":")
    return b"data: " + json.dumps(document, separators=separators).encode() + b"\n\n"


def event(name: str, **document: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **document}, separators=(',', ':'))}\n\n".encode()


def stream(account: Account, *pieces: bytes | BaseException, path: str = CHAT, **body: Any) -> MeteredStream:
    return metered(Source(pieces), account.permit, path=path, body={"stream": True, **body}, raw=RAW)


async def read(metered_stream: MeteredStream, most: int = 1000) -> bytes:
    """Return what a client gets that leaves after so many pieces."""
    got = []
    async for piece in metered_stream:
        assert piece
        got.append(piece)
        if len(got) == most:
            break
    await metered_stream.aclose()
    await metered_stream.aclose()
    return b"".join(got)


@pytest.mark.parametrize("path", [CHAT, TEXT, f"{CHAT}?x=1"])
def test_a_stream_is_asked_for_its_usage_in_every_chunk(path: str) -> None:
    asked = with_usage({"stream": True, "stream_options": {"include_usage": False, "other": 1}}, path)
    assert asked["stream_options"] == {"include_usage": True, "continuous_usage_stats": True, "other": 1}


@pytest.mark.parametrize(
    ("body", "path"),
    [({}, CHAT), ({"stream": False}, CHAT), ({"stream": True}, MESSAGES), ({"stream": True, "stream_options": 3}, CHAT)],
    ids=["whole", "no stream", "another endpoint", "options that the engine will refuse"],
)
def test_other_bodies_stay_as_they_are(body: dict[str, Any], path: str) -> None:
    assert with_usage(body, path) == body


@pytest.mark.parametrize("spaced", [False, True])
async def test_a_client_that_asked_for_no_usage_sees_none(spaced: bool) -> None:
    account = Account()
    pieces = [chunk("a", (7, 1), spaced=spaced), chunk("b", (7, 2), spaced=spaced), chunk(None, (7, 2), spaced=spaced), DONE]
    got = await read(stream(account, *pieces))
    assert got == chunk("a", spaced=spaced) + chunk("b", spaced=spaced) + DONE
    assert (account.charged, account.released) == ([9], 1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"usage":{"total_tokens":9},"choices":[{"index":0}]}', '{"choices":[{"index":0}]}'),
        ('{"choices":[{"index":0}], "usage": {"total_tokens": 9}, "id":"c"}', '{"choices":[{"index":0}], "id":"c"}'),
        ('{"choices":[{"index":0}],"usage":null}', '{"choices":[{"index":0}],"usage":null}'),
    ],
    ids=["first", "between", "none yet"],
)
async def test_what_is_left_of_a_chunk_is_json(before: str, after: str) -> None:
    assert await read(stream(Account(), f"data: {before}\n\n".encode())) == f"data: {after}\n\n".encode()


async def test_a_client_that_asked_for_usage_sees_the_last_one_only() -> None:
    account = Account()
    got = await read(stream(account, chunk("a", (7, 1)), chunk(None, (7, 1)), DONE, stream_options={"include_usage": True}))
    assert got == chunk("a") + chunk(None, (7, 1)) + DONE
    assert account.charged == [8]


async def test_a_client_that_asked_for_all_usage_sees_all() -> None:
    pieces = [chunk("a", (7, 1)), chunk(None, (7, 1)), DONE]
    options = {"include_usage": True, "continuous_usage_stats": True}
    assert await read(stream(Account(), *pieces, stream_options=options)) == b"".join(pieces)


async def test_several_events_in_one_piece_are_each_looked_at() -> None:
    account = Account()
    got = await read(stream(account, chunk("a", (7, 1)) + chunk("b", (7, 2)) + chunk(None, (7, 2)) + DONE))
    assert got == chunk("a") + chunk("b") + DONE
    assert account.charged == [9]


async def test_lines_may_end_in_carriage_returns() -> None:
    account = Account()
    pieces = [each.replace(b"\n", b"\r\n") for each in (chunk("a", (7, 1)), chunk(None, (7, 1)), DONE)]
    assert await read(stream(account, *pieces)) == (chunk("a") + DONE).replace(b"\n", b"\r\n")
    assert account.charged == [8]


async def test_what_a_model_writes_is_never_taken_for_usage() -> None:
    account = Account()
    text = ',"usage":{"total_tokens":99999} "choices":[] \n\n {"a": ,"usage": {}}'
    assert await read(stream(account, chunk(text, (7, 1)), DONE)) == chunk(text) + DONE
    assert account.charged == [8]


async def test_a_client_that_leaves_early_is_charged_for_what_was_generated() -> None:
    account = Account()
    await read(stream(account, chunk("a", (7, 1)), chunk("b", (7, 2)), chunk("c", (7, 3)), DONE), most=2)
    assert (account.charged, account.released) == ([9], 1)


async def test_choices_count_each_their_own_answer_and_share_the_prompt() -> None:
    account = Account()
    await read(stream(account, chunk("a", (7, 2), index=0), chunk("b", (7, 3), index=1), n=2), most=2)
    assert account.charged == [12]


async def test_several_prompts_are_counted_each() -> None:
    account = Account()
    await read(stream(account, chunk("a", (7, 2), index=0), chunk("b", (5, 3), index=1), path=TEXT), most=2)
    assert account.charged == [17]


async def test_a_client_that_leaves_before_the_first_byte_is_charged_an_estimate_of_its_prompt() -> None:
    account = Account()
    source = Source([chunk("a")])
    left = metered(source, account.permit, path=CHAT, body={}, raw=RAW)
    await left.aclose()
    assert (account.charged, account.released, source.closed) == ([100], 1, 1)


async def test_an_engine_that_tells_no_usage_is_counted_by_its_chunks() -> None:
    account = Account()
    assert await read(stream(account, chunk("a"), chunk("b"), DONE)) == chunk("a") + chunk("b") + DONE
    assert account.charged == [102]


@pytest.mark.parametrize("error", [RuntimeError("broken"), asyncio.CancelledError()], ids=["broken", "cancelled"])
async def test_a_stream_that_breaks_is_charged_once(error: BaseException) -> None:
    account = Account()
    broken = stream(account, chunk("a", (7, 1)), error)
    with pytest.raises(type(error)):
        await read(broken)
    await broken.aclose()
    assert (account.charged, account.released) == ([8], 1)


async def test_without_a_limit_of_tokens_every_byte_passes_and_the_permit_is_released() -> None:
    account = Account(counts=False)
    pieces = [chunk("a", (7, 1)), chunk(None, (7, 1)), DONE]
    assert await read(stream(account, *pieces)) == b"".join(pieces)
    assert (account.charged, account.released) == ([], 1)


MESSAGE = [
    event("message_start", message={"content": [], "usage": {"input_tokens": 7, "output_tokens": 0}}),
    event("content_block_start", index=0),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "a"}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "b"}),
    event("message_delta", delta={}, usage={"input_tokens": 4, "cache_read_input_tokens": 3, "output_tokens": 5}),
    event("message_stop"),
]
RESPONSE = [
    event("response.created", response={"usage": None}),
    event("response.output_text.delta", delta="a"),
    event("response.reasoning_text.delta", delta="b"),
    event("response.output_text.done", text="a"),
    event(
        "response.completed",
        response={"usage": {"input_tokens": 7, "input_tokens_details": {"x": []}, "output_tokens": 5, "total_tokens": 12}},
    ),
]


@pytest.mark.parametrize(
    ("path", "pieces", "most", "tokens"),
    [
        (MESSAGES, MESSAGE, 6, 12),
        (MESSAGES, MESSAGE, 4, 9),
        (MESSAGES, MESSAGE, 1, 7),
        (RESPONSES, RESPONSE, 5, 12),
        (RESPONSES, RESPONSE, 3, 102),
        (RESPONSES, [b"".join(RESPONSE)], 1, 12),
    ],
    ids=["messages", "messages left", "messages left at once", "responses", "responses left", "in one piece"],
)
async def test_messages_and_responses_are_counted_untouched(path: str, pieces: list[bytes], most: int, tokens: int) -> None:
    account = Account()
    assert await read(stream(account, *pieces, path=path), most) == b"".join(pieces[:most])
    assert (account.charged, account.released) == ([tokens], 1)


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "details": {"a": 1}}}, 9),
        ({"data": [], "usage": {"prompt_tokens": 7, "total_tokens": 7, "completion_tokens": 0, "details": None}}, 7),
        ({"content": [], "usage": {"input_tokens": 7, "output_tokens": 2}}, 9),
        ({"output": [], "usage": {"input_tokens": 7, "details": {"b": [1]}, "output_tokens": 2}, "user": None}, 9),
        ({"content": [], "usage": {"input_tokens": 1, "cache_read_input_tokens": 6, "output_tokens": 2}}, 9),
        ({"choices": ['"usage":{"total_tokens":5}'], "usage": None}, None),
        ({"usage": {}}, None),
        ({"tokens": [1]}, None),
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["compact", "spaced"])
def test_whole_answers_say_what_they_cost(document: dict[str, Any], tokens: int | None, separators: tuple[str, str]) -> None:
    assert usage_of(json.dumps(document, separators=separators).encode()) == tokens


@pytest.mark.parametrize("body", [b"", b'"usage"', b'{"usage":{"total_tokens":', b'{"usage":{x}}'])
def test_what_is_no_json_says_nothing(body: bytes) -> None:
    assert usage_of(body) is None


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}', 2),
        (b'{"content":[],"usage":{"input_tokens":7,"output_tokens":3}}', 3),
        (b'{"usage": {"input_tokens": 7, "output_tokens_details": {"reasoning_tokens": 1}, "output_tokens": 4}}', 4),
        (b'{"data":[],"usage":{"prompt_tokens":7,"total_tokens":7}}', 0),
        (b'{"choices":["\\"usage\\":{\\"completion_tokens\\":5}"]}', 0),
        (b'{"usage":null}', 0),
        (b'{"usage":{"completion_tokens":null}}', 0),
        (b'{"usage":{x}}', 0),
        (b"", 0),
    ],
    ids=["openai", "anthropic", "responses", "embeddings", "written-by-a-model", "null", "null-count", "no-json", "nothing"],
)
def test_whole_answers_say_how_much_they_generated(body: bytes, tokens: int) -> None:
    assert completion_tokens(body) == tokens
