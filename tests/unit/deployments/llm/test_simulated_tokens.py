from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from deployments.llm.simulated import SimulatedEngine
from deployments.llm.simulated_tokens import FILLER, NOTICE, BadPrompt, Token, generate, prompt_ids
from serve_app.config import SimulatedLatency
from tests.unit.deployments.llm.asgi import Exchange

FAST = SimulatedLatency(prefill_s_per_token=0, decode_s_per_token=0)
QUESTION = {"messages": [{"role": "user", "content": "Why?"}]}


def first(count: int, prompt: list[int], *, adapter: str | None = None) -> list[Token]:
    return list(itertools.islice(generate(prompt, adapter=adapter), count))


def ids(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


def test_words_have_an_id_each() -> None:
    assert len({*NOTICE, *FILLER}) == len(NOTICE) + len(FILLER)


def test_the_same_prompt_has_the_same_words_and_another_one_has_others() -> None:
    one, other = prompt_ids({"prompt": "one"}), prompt_ids({"prompt": "other"})
    assert first(30, one) == first(30, prompt_ids({"prompt": "one"}))
    assert first(30, one) != first(30, other)


@pytest.mark.parametrize("adapter", [None, "legal/v2"])
@pytest.mark.parametrize("said", [1, 6, 7, 8, 25])
def test_a_prompt_with_its_own_tokens_goes_on_with_the_very_next_word(said: int, adapter: str | None) -> None:
    prompt = prompt_ids(QUESTION)
    whole = first(40, prompt, adapter=adapter)
    assert first(40 - said, prompt + ids(whole[:said]), adapter=adapter) == whole[said:]


def test_a_token_left_out_shows_in_what_follows() -> None:
    prompt = prompt_ids(QUESTION)
    whole = first(20, prompt)
    assert first(1, prompt + ids(whole[:9])) != [whole[10]]


def test_a_prompt_of_ids_is_what_it_says() -> None:
    assert prompt_ids({"prompt": [7, 2**32 - 1]}) == [7, 2**32 - 1]


@pytest.mark.parametrize("bad", [-1, 2**32, True, "7", None], ids=["negative", "large", "truth", "text", "none"])
def test_what_is_no_token_id_is_refused_by_its_place(bad: object) -> None:
    with pytest.raises(BadPrompt, match=r"prompt\[1\] must be a token id"):
        prompt_ids({"prompt": [5, bad]})


async def ask(body: dict[str, Any], *, path: str) -> Exchange:
    app = await SimulatedEngine("chat", FAST).start()
    return await Exchange(json.dumps(body).encode(), path=path).run(app)


async def events(body: dict[str, Any], *, path: str) -> list[dict[str, Any]]:
    *made, done, _ = (await ask({**body, "stream": True}, path=path)).body.split(b"\n\n")
    assert done == b"data: [DONE]"
    return [json.loads(event.removeprefix(b"data: ")) for event in made]


async def test_a_chats_stream_begins_with_its_prompts_ids_and_has_the_ids_of_each_piece() -> None:
    role, *pieces = await events({**QUESTION, "max_tokens": 3, "return_token_ids": True}, path="/v1/chat/completions")
    prompt = prompt_ids(QUESTION)
    assert (role["prompt_token_ids"], role["choices"][0]["delta"]) == (prompt, {"role": "assistant", "content": ""})
    assert [p["choices"][0]["token_ids"] for p in pieces] == [*([i] for i in ids(first(3, prompt))), []]
    assert not any("prompt_token_ids" in p for p in pieces)


async def test_a_completions_stream_has_its_prompts_ids_in_the_first_choice() -> None:
    body = {"prompt": "Why?", "max_tokens": 2, "return_token_ids": True}
    choices = [e["choices"][0] for e in await events(body, path="/v1/completions")]
    prompt = prompt_ids(body)
    assert [c.get("prompt_token_ids") for c in choices] == [prompt, None, None]
    assert [c["token_ids"] for c in choices] == [*([i] for i in ids(first(2, prompt))), []]


async def test_a_whole_answer_has_its_ids_where_vllm_has_them() -> None:
    chat = json.loads((await ask({**QUESTION, "max_tokens": 2, "return_token_ids": True}, path="/v1/chat/completions")).body)
    body = {"prompt": "Why?", "max_tokens": 2, "return_token_ids": True}
    text = json.loads((await ask(body, path="/v1/completions")).body)["choices"][0]
    assert (chat["prompt_token_ids"], chat["choices"][0]["token_ids"]) == (prompt_ids(QUESTION), [1, 2])
    assert (text["prompt_token_ids"], text["token_ids"]) == (prompt_ids(body), [1, 2])


async def test_an_answer_has_no_ids_unless_it_is_asked_for_them() -> None:
    assert b"token_ids" not in (await ask({**QUESTION, "stream": True}, path="/v1/chat/completions")).body
    assert b"token_ids" not in (await ask(QUESTION, path="/v1/chat/completions")).body


async def test_a_completion_goes_on_where_a_chat_was_cut() -> None:
    chat = {**QUESTION, "max_tokens": 20, "return_token_ids": True}
    role, *pieces = await events(chat, path="/v1/chat/completions")
    said = [i for p in pieces[:9] for i in p["choices"][0]["token_ids"]]
    rest = {"prompt": role["prompt_token_ids"] + said, "max_tokens": 11}
    made = json.loads((await ask(rest, path="/v1/completions")).body)
    assert made["choices"][0]["text"] == "".join(p["choices"][0]["delta"]["content"] for p in pieces[9:20])
    assert made["usage"]["prompt_tokens"] == len(rest["prompt"])


async def test_a_prompt_that_is_none_is_refused_by_name() -> None:
    error = json.loads((await ask({"prompt": [1, -1]}, path="/v1/completions")).body)["error"]
    assert (error["param"], error["code"]) == ("prompt", "invalid_request")
