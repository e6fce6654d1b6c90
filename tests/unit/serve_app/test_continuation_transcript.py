from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest

from serve_app.continuation_plan import CHAT, COMPLETIONS, plan_of
from serve_app.continuation_transcript import Seam, Transcript
from tests.unit.serve_app.continuing import FINAL, PROMPT, TEXTS, Engine, documents, finish, text_of

MESSAGES = [{"role": "user", "content": "Hello"}]
CHATTING: dict[str, Any] = {"model": "chat", "stream": True, "temperature": 0, "messages": MESSAGES}
COMPLETING: dict[str, Any] = {"model": "chat", "stream": True, "temperature": 0, "prompt": "Hello", "max_tokens": 99}


def transcript(body: Mapping[str, Any]) -> Transcript:
    plan = plan_of(CHAT if "messages" in body else COMPLETIONS, body)
    assert plan is not None
    return Transcript(plan)


def reference(body: Mapping[str, Any], engine: Engine) -> bytes:
    return b"".join(engine.events(body))


def broken_at(place: int, body: Mapping[str, Any], *, engine: Engine, also_at: int | None = None) -> bytes | None:
    """Return what a client reads whose stream breaks after so many events, and its continuation too; None: an error."""
    made = transcript(body)
    read = b"".join(made.read(event) for event in engine.events({**body, "return_token_ids": True})[:place])
    for end in (also_at, None):
        if (rest := made.closing()) is not None:
            return read + rest
        seam = made.seam()
        if seam is None:
            return None
        asked = made.plan.request(made.prompt, made.tokens[: seam.tokens], room_tokens=200)
        assert asked is not None
        made.join(seam)
        read += b"".join(made.read(event) for event in engine.events(asked, stream_id="two")[:end])
        if made.failure:
            return None
        if made.is_done:
            return read
    raise AssertionError("the continuation did not end")


@pytest.mark.parametrize("body", [CHATTING, COMPLETING], ids=["chat", "completion"])
@pytest.mark.parametrize("per_chunk", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="plain"),
        pytest.param({"stop": "ENDING"}, id="stop"),
        pytest.param({"stop": ["G end", "never said at all"]}, id="stops"),
        pytest.param({"stop": ["ENDING"], "include_stop_str_in_output": True}, id="stop-included"),
        pytest.param({"stop": ["!"]}, id="stop-of-one"),
        pytest.param({"max_tokens": 11}, id="max-tokens"),
        pytest.param({"stream_options": {"include_usage": True}}, id="usage"),
    ],
)
def test_wherever_a_greedy_stream_breaks_its_client_reads_the_text_of_a_whole_one(
    body: Mapping[str, Any], per_chunk: int, more: Mapping[str, Any]
) -> None:
    body = {**body, **more}
    whole = reference(body, Engine(per_chunk))
    events = len(Engine(per_chunk).events(body))
    broken = [broken_at(place, body, engine=Engine(per_chunk)) for place in range(1, events)]
    assert [text_of(each or b"") for each in broken] == [text_of(whole)] * (events - 1)
    ends = [(each or b"")[-14:] for each in broken]
    assert ends == [b"data: [DONE]\n\n"] * (events - 1)
    assert [finish(each or b"") for each in broken] == [finish(whole)] * (events - 1)


def test_the_reference_itself_is_what_the_tokens_say() -> None:
    assert text_of(reference(CHATTING, Engine())) == FINAL == b"".join(TEXTS).decode()


def test_a_continuation_that_breaks_is_continued() -> None:
    for place in range(1, len(TEXTS)):
        for also_at in range(1, 6):
            read = broken_at(place, CHATTING, engine=Engine(2), also_at=also_at)
            assert text_of(read or b"") == FINAL, (place, also_at)


def test_a_stream_by_chance_goes_on_where_nothing_is_cut_off() -> None:
    body = {**CHATTING, "temperature": 0.7}
    texts = [broken_at(place, body, engine=Engine()) for place in range(1, len(TEXTS))]
    assert [text_of(each or b"") for each in texts] == [FINAL] * len(texts)
    in_twos = [broken_at(place, body, engine=Engine(2)) for place in range(1, 5)]
    assert [each is None for each in in_twos] == [False, True, True, True]


def test_chunks_of_a_continuation_are_those_of_the_clients_stream() -> None:
    read = broken_at(5, CHATTING, engine=Engine())
    assert read is not None
    said = documents(read)
    assert {(each["id"], each["created"], each["object"]) for each in said} == {("one", 7, "chat.completion.chunk")}
    assert [each["choices"][0]["delta"].get("role") for each in said] == ["assistant", *[None] * (len(said) - 1)]
    assert b'"prompt_token_ids": [' not in read
    assert {repr(each["choices"][0].get("token_ids")) for each in said} == {"None"}
    assert said[-1]["choices"][0]["stop_reason"] is None


def test_a_client_that_asked_for_token_ids_gets_each_once() -> None:
    body = {**CHATTING, "return_token_ids": True}
    for per_chunk in (1, 2):
        for place in range(1, len(TEXTS) // per_chunk):
            read = broken_at(place, body, engine=Engine(per_chunk))
            assert read is not None
            said = [each["choices"][0].get("token_ids") or [] for each in documents(read)]
            assert list(itertools.chain.from_iterable(said)) == list(range(len(TEXTS)))
            assert [each["prompt_token_ids"] for each in documents(read) if each.get("prompt_token_ids")] == [PROMPT]


@pytest.mark.parametrize("place", [1, 4, 9, len(TEXTS) + 1, len(TEXTS) + 2])
def test_usage_is_that_of_the_whole_answer(place: int) -> None:
    body = {**CHATTING, "stream_options": {"include_usage": True}}
    usage = documents(broken_at(place, body, engine=Engine()) or b"")[-1]["usage"]
    told = [usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    assert told == [len(PROMPT), len(TEXTS), len(PROMPT) + len(TEXTS)]
    assert usage.get("prompt_tokens_details", {"cached_tokens": 3}) == {"cached_tokens": len(PROMPT)}


def test_usage_in_every_chunk_counts_on() -> None:
    body = {**COMPLETING, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    said = [each["usage"]["completion_tokens"] for each in documents(broken_at(6, body, engine=Engine()) or b"")]
    assert said == [*range(1, len(TEXTS) + 1), len(TEXTS)]


def test_another_answer_than_the_one_begun_is_an_error() -> None:
    made = transcript({**CHATTING, "stop": ["abc"]})
    for event in Engine().events({**CHATTING, "stop": ["abc"], "return_token_ids": True})[:5]:
        made.read(event)
    seam = made.seam()
    assert seam is not None
    made.join(seam)
    assert made.read(chunk("something else", [1, 2], is_chat=False)) == b""
    assert (b"went on otherwise" in made.failure, made.seam(), made.closing()) == (True, None, None)


def test_a_seam_lies_before_tokens_whose_text_is_not_told() -> None:
    made = transcript(CHATTING)
    seams = []
    for event in Engine().events({**CHATTING, "return_token_ids": True})[:8]:
        made.read(event)
        seams.append(made.seam())
    assert seams == [Seam(*each) for each in [(0, 0), (1, 2), (1, 2), (3, 4), (4, 7), (4, 7), (4, 7), (7, 11)]]


def chunk(text: str, ids: list[int] | None, *, is_chat: bool = True, **more: Any) -> bytes:
    said = {"delta": {"content": text, **more}} if is_chat else {"text": text, **more}
    choice = {"index": 0, **said, "finish_reason": None, "token_ids": ids}
    return b"data: " + json.dumps({"id": "one", "choices": [choice], "prompt_token_ids": PROMPT}).encode() + b"\n\n"


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(chunk("", [1], reasoning="hm"), id="reasoning"),
        pytest.param(chunk("", [1], tool_calls=[{"index": 0}]), id="tool-call"),
        pytest.param(chunk("text", None), id="text-without-ids"),
        pytest.param(chunk("a", [1]).replace(b'"index": 0', b'"index": 1'), id="another-choice"),
        pytest.param(b"event: other\ndata: {}\n\n", id="named-event"),
        pytest.param(b"data: {no json}\n\n", id="no-json"),
        pytest.param(b'data: {"error": {"message": "bad", "code": 400}}\n\n', id="the-requests-own-fault"),
    ],
)
def test_what_tokens_do_not_say_passes_and_ends_the_chance_to_go_on(event: bytes) -> None:
    made = transcript(CHATTING)
    made.read(chunk("Hi", [0]))
    assert made.seam() == Seam(1, 2)
    read = made.read(event)
    assert (b"token_ids" in read or read == event, made.seam(), made.failure) == (True, None, b"")


def test_comments_pass() -> None:
    made = transcript(CHATTING)
    assert made.read(b": keep-alive\n\n" + chunk("Hi", [0])).startswith(b": keep-alive\n\ndata: ")
    assert made.seam() == Seam(1, 2)


def test_an_engine_that_says_it_failed_may_be_followed_by_another() -> None:
    made = transcript(CHATTING)
    failed = b'data: {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}\n\n'
    assert text_of(made.read(chunk("Hi", [0]) + failed + b"data: [DONE]\n\n")) == "Hi"
    assert (made.failure, made.is_done, made.seam()) == (failed, False, Seam(1, 2))


def test_text_that_looks_like_token_ids_is_left_alone() -> None:
    made = transcript(CHATTING)
    said = '"token_ids":[1,2]'
    assert text_of(made.read(chunk(said, [0]))) == said


def test_nothing_is_known_before_the_prompts_tokens() -> None:
    assert transcript(CHATTING).seam() is None


def test_an_end_that_the_client_has_is_not_told_again() -> None:
    made = transcript(CHATTING)
    for event in Engine().events({**CHATTING, "return_token_ids": True}):
        made.read(event)
    assert (made.is_done, made.closing()) == (True, b"")
