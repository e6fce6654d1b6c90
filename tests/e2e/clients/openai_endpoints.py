"""OpenAI's SDK: completions, responses and embeddings."""

from __future__ import annotations

import openai

from tests.e2e.clients.checks import PROMPT, Checks, error_of
from tests.e2e.clients.openai_client import ASK, client

check = Checks()


@check("completions")
def completions() -> str:
    answer = client.completions.create(
        model="chat", prompt="import os", max_tokens=4, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    stream = client.completions.create(
        model="chat", prompt="import os", max_tokens=4, temperature=0, stream=True, extra_body={"ignore_eos": True}
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text
    return repr(answer.choices[0].text)


@check("responses")
def responses() -> str:
    answer = client.responses.create(model="chat", input=PROMPT, max_output_tokens=40, temperature=0)
    whole = client.chat.completions.create(model="chat", messages=ASK, temperature=0, max_tokens=40)
    assert answer.status == "completed"
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0
    assert answer.output_text == whole.choices[0].message.content
    return answer.output_text


@check("responses-stream")
def responses_stream() -> str:
    kinds: list[str] = []
    text = ""
    for event in client.responses.create(model="chat", input=PROMPT, max_output_tokens=40, temperature=0, stream=True):
        kinds.append(event.type)
        text += event.delta if event.type == "response.output_text.delta" else ""
        final = event.response if event.type == "response.completed" else None
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final is not None
    assert final.output_text == text
    return f"{len(kinds)} events"


@check("responses-turns")
def responses_turns() -> str:
    answer = client.responses.create(
        model="chat",
        instructions="Be brief.",
        input=[
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": PROMPT},
        ],
        max_output_tokens=8,
    )
    return str(answer.status)


@check("responses-state")
def responses_state() -> str:
    first = client.responses.create(model="chat", input=PROMPT, max_output_tokens=1)
    error = error_of(
        openai.NotFoundError,
        lambda: client.responses.create(model="chat", input=PROMPT, previous_response_id=first.id, max_output_tokens=1),
    )
    return error.message


@check("embeddings")
def embeddings() -> str:
    texts = ["current directory", "working folder", "a red apple"]
    packed = client.embeddings.create(model="minilm", input=texts)  # the SDK asks for base64 and unpacks it
    plain = client.embeddings.create(model="minilm", input=texts, encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1, 2]
    assert {len(item.embedding) for item in packed.data} == {384}
    gap = max(
        abs(a - b) for x, y in zip(packed.data, plain.data, strict=True) for a, b in zip(x.embedding, y.embedding, strict=True)
    )
    assert gap < 1e-6
    assert packed.usage.total_tokens > 0
    return "384 numbers"


@check("embeddings-token-ids")
def embeddings_token_ids() -> str:
    error = error_of(openai.BadRequestError, lambda: client.embeddings.create(model="minilm", input=[[1, 2, 3]]))
    assert error.param == "input"
    return error.message


if __name__ == "__main__":
    check.run()
