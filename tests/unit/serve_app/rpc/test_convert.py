from __future__ import annotations

import json
import math
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import BadRequest
from serve_app.protos.manta.v1.chat_pb2 import AskRequest, ChatRequest
from serve_app.protos.manta.v1.common_pb2 import Sampling
from serve_app.protos.manta.v1.inference_pb2 import EmbedRequest, GenerateRequest
from serve_app.rpc.convert import ask_body, chat_body, embeddings_body, generate_body, json_bytes, struct_json

STREAM = {"stream": True, "stream_options": {"include_usage": True}}
HI = {"role": "ROLE_USER", "content": [{"text": "hi"}]}


def chat(**fields: Any) -> ChatRequest:
    request = ChatRequest()
    ParseDict({"model": "chat", "messages": [HI], **fields}, request)
    return request


def added(**fields: Any) -> dict[str, Any]:
    """Return what fields add to the body of a plain chat."""
    plain = chat_body(chat())
    return {name: value for name, value in chat_body(chat(**fields)).items() if name not in plain or plain[name] != value}


def test_a_plain_chat_is_what_clients_of_rest_send() -> None:
    assert chat_body(chat()) == {"model": "chat", "messages": [{"role": "user", "content": "hi"}], **STREAM}


def test_sampling_parameters_keep_their_names_and_zeros() -> None:
    sampling = {"maxTokens": 5, "temperature": 0.0, "topP": 0.7, "topK": -1, "seed": "7", "n": 2, "stop": ["a"]}
    assert added(sampling=sampling) == {
        "max_tokens": 5, "temperature": 0.0, "top_p": 0.7, "top_k": -1, "seed": 7, "n": 2, "stop": ["a"],
    }  # fmt: skip


def test_every_sampling_parameter_reaches_the_engine() -> None:
    every = Sampling(stop=["x"], logit_bias={"5": 1.5})
    for name in Sampling.DESCRIPTOR.fields_by_name:
        if name not in ("stop", "logit_bias"):
            setattr(every, name, 1)
    assert set(chat_body(ChatRequest(sampling=every))) == {*Sampling.DESCRIPTOR.fields_by_name, "model", "messages", *STREAM}


def test_parts_other_than_one_text_are_a_list() -> None:
    content = [
        {"text": "look"},
        {"imageUrl": {"url": "https://x/y.png", "detail": "low"}},
        {"other": {"type": "input_audio", "rate": 16000}},
    ]
    [message] = added(messages=[{"role": "ROLE_USER", "content": content}])["messages"]
    assert message["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        {"type": "input_audio", "rate": 16000},
    ]


def test_a_conversation_with_tools_is_carried() -> None:
    called = {"role": "ROLE_ASSISTANT", "toolCalls": [{"id": "c1", "name": "f", "arguments": "{}"}]}
    answered = {"role": "ROLE_TOOL", "toolCallId": "c1", "name": "f", "content": [{"text": "4"}]}
    function = {"name": "f", "description": "Adds.", "parameters": {"type": "object", "maxProperties": 2}, "strict": True}
    assert added(
        messages=[called, answered], tools=[function], toolChoice={"name": "f"}, parallelToolCalls=False
    ) == {
        "messages": [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "4", "name": "f", "tool_call_id": "c1"},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"toolChoice": {"mode": "TOOL_MODE_REQUIRED"}}, {"tool_choice": "required"}),
        ({"toolChoice": {}}, {}),
        ({"responseFormat": {"jsonObject": {}}}, {"response_format": {"type": "json_object"}}),
        ({"responseFormat": {}}, {}),
        (
            {"responseFormat": {"jsonSchema": {"name": "s", "schema": {"type": "object"}, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "strict": True, "schema": {"type": "object"}},
                }
            },
        ),
        ({"logprobs": True, "topLogprobs": 0}, {"logprobs": True, "top_logprobs": 0}),
        ({"user": "u"}, {"user": "u"}),
        ({"extra": {"top_a": 1, "min_tokens": 2.5, "retrieval": {"top_k": 3}}},
         {"top_a": 1, "min_tokens": 2.5, "retrieval": {"top_k": 3}}),
    ],
)  # fmt: skip
def test_a_field_becomes_a_member(fields: dict[str, Any], body: dict[str, Any]) -> None:
    assert added(**fields) == body


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"content": [{"text": "hi"}]}]}, "messages[0].role"),
        ({"messages": [HI, {"role": "ROLE_USER", "content": [{}]}]}, "messages[1].content[0]"),
        ({"extra": {"temperature": 1}}, "extra.temperature"),
        ({"extra": {"stream": False}}, "extra.stream"),
        ({"extra": {"messages": []}}, "extra.messages"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        chat_body(chat(**fields))
    assert caught.value.param == param


def test_a_number_that_json_lacks_is_refused_by_name() -> None:
    extra = Struct()
    extra.update({"a": [1.0, {"b": math.inf}]})
    with pytest.raises(BadRequest) as caught:
        struct_json(extra, "extra")
    assert caught.value.param == "extra.a[1].b"
    with pytest.raises(BadRequest, match="finite") as caught:
        json_bytes(chat_body(ChatRequest(sampling=Sampling(temperature=math.nan))))
    assert caught.value.param == "sampling"


def test_a_question_is_a_chats_last_message() -> None:
    fields = {
        "model": "docs",
        "question": "Why?",
        "history": [HI],
        "sampling": {"seed": "1"},
        "retrieval": {"topK": 3, "filters": {"type": "eq", "key": "year", "value": 2024}, "collection": "other"},
        "user": "u",
        "extra": {"reasoning_effort": "low"},
    }
    assert ask_body(ParseDict(fields, AskRequest())) == {
        "model": "docs",
        "messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": "Why?"}],
        "seed": 1,
        "retrieval": {"top_k": 3, "filters": {"type": "eq", "key": "year", "value": 2024}, "collection": "other"},
        "user": "u",
        "reasoning_effort": "low",
        **STREAM,
    }


def test_an_empty_question_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        ask_body(AskRequest(model="docs", question=" "))
    assert caught.value.param == "question"


def test_a_completion_is_asked_for_whole() -> None:
    fields = {"model": "m", "prompt": "Once", "logprobs": 0, "echo": False, "sampling": {"maxTokens": 1}}
    assert generate_body(ParseDict(fields, GenerateRequest())) == {
        "model": "m", "prompt": "Once", "logprobs": 0, "echo": False, "max_tokens": 1, "stream": False,
    }  # fmt: skip


def test_embeddings_are_asked_for_as_numbers() -> None:
    body = {"model": "m", "input": ["a"], "encoding_format": "float", "dimensions": 2}
    assert embeddings_body(EmbedRequest(model="m", input=["a"], dimensions=2)) == body


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@given(st.dictionaries(st.text(), TREES, max_size=4))
def test_any_json_object_survives_a_struct(document: dict[str, Any]) -> None:
    made = Struct()
    made.update(document)
    again = struct_json(Struct.FromString(made.SerializeToString()), "extra")
    assert again == document
    json_bytes(again)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_reach_the_engine_exactly(number: float) -> None:
    request = ChatRequest.FromString(ChatRequest(sampling=Sampling(temperature=number)).SerializeToString())
    assert json.loads(json_bytes(chat_body(request)))["temperature"] == number
