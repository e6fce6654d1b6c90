"""REST and gRPC are two ways to one answer: the same tokens, through stable and canary alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2, inference_pb2_grpc
from tests.e2e.clients.checks import PROMPT, Place

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.matrix, pytest.mark.timeout(2400)]

VARIANTS = ("stable", "canary")
MOST_TOKENS = 24
PROMPTS = [
    PROMPT,
    "Source 1: math.gcd\n[1] Greatest common divisor.\n\nQuestion: What does math.gcd do?",
    "Source 1: os.mkdir\n[1] Create a directory.\n\nQuestion: Which function creates a directory?",
    "What does heapq.heappush do?",
    "import os\nprint(os.getcwd())",
    "Push item onto heap, maintaining the heap invariant.",
    "ß €, 漢字 and 🙂",
    "Return a",
    "1 2 3 4 5 6 7",
    "Hello",
]
QUESTIONS = ["What does os.getcwd do?", "What does math.isqrt do?", "What does random.shuffle do?"]
every_prompt = pytest.mark.parametrize("prompt", [pytest.param(text, id=f"prompt-{i}") for i, text in enumerate(PROMPTS)])
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_sampling = pytest.mark.parametrize("temperature", [pytest.param(0.0, id="greedy"), pytest.param(1.0, id="drawn")])


@dataclass(frozen=True)
class Answered:
    """What both fronts have to agree on."""

    text: str
    tokens: list[str]
    usage: tuple[int, int]  # tokens of the prompt and of the answer
    variant: str


class Rest:
    """The REST front."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def post(self, path: str, body: dict[str, Any], *, session: str = "") -> httpx.Response:
        answer = self._client.post(path, json=body, headers={"x-session-id": session} if session else {})
        assert answer.status_code == 200, answer.text
        return answer

    def chat(self, body: dict[str, Any], session: str) -> Answered:
        answer = self.post("/v1/chat/completions", body, session=session)
        document = answer.json()
        [choice] = document["choices"]
        tokens = [token["token"] for token in choice["logprobs"]["content"]]
        return Answered(choice["message"]["content"], tokens, used(document["usage"]), answer.headers["x-manta-variant"])

    def chat_stream(self, body: dict[str, Any], session: str) -> Answered:
        streaming = {**body, "stream": True, "stream_options": {"include_usage": True}}
        answer = self.post("/v1/chat/completions", streaming, session=session)
        events = events_of(answer.text)
        choices = [choice for event in events for choice in event["choices"]]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        tokens = [token["token"] for choice in choices if choice.get("logprobs") for token in choice["logprobs"]["content"]]
        return Answered(text, tokens, used(events[-1]["usage"]), answer.headers["x-manta-variant"])

    def complete(self, body: dict[str, Any], session: str) -> Answered:
        answer = self.post("/v1/completions", body, session=session)
        document = answer.json()
        [choice] = document["choices"]
        usage = used(document["usage"])
        return Answered(choice["text"], choice["logprobs"]["tokens"], usage, answer.headers["x-manta-variant"])


class Rpc:
    """The gRPC front."""

    def __init__(self, channel: grpc.Channel, key: str) -> None:
        self._stub: Any = inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]  # generated
        self._key = key

    def call(self, method: str, request: Any, *, session: str = "") -> Any:
        metadata = [("authorization", f"Bearer {self._key}"), *([("x-session-id", session)] if session else [])]
        return getattr(self._stub, method)(request, metadata=metadata, timeout=120)

    def chat(self, prompt: str, sampling: common_pb2.Sampling, session: str) -> Answered:
        request = chat_pb2.ChatRequest(
            model="chat", messages=[user_message(prompt)], sampling=sampling, logprobs=True, top_logprobs=1
        )
        call = self.call("Chat", request, session=session)
        messages = list(call)
        choices = [choice for message in messages for choice in message.choices]
        text = "".join(choice.delta.content for choice in choices)
        tokens = [token.token for choice in choices for token in choice.logprobs]
        return Answered(text, tokens, counted(messages[-1].usage), dict(call.trailing_metadata())["x-manta-variant"])

    def generate(self, prompt: str, sampling: common_pb2.Sampling, session: str) -> Answered:
        request = inference_pb2.GenerateRequest(model="chat", prompt=prompt, sampling=sampling, logprobs=1)
        answer = self.call("Generate", request, session=session)
        [choice] = answer.choices
        tokens = [token.token for token in choice.logprobs]
        return Answered(choice.text, tokens, counted(answer.usage), answer.origin.variant)


def user_message(text: str) -> chat_pb2.ChatMessage:
    return chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])


def used(usage: dict[str, int]) -> tuple[int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"]


def counted(usage: common_pb2.Usage) -> tuple[int, int]:
    return usage.prompt_tokens, usage.completion_tokens


def events_of(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def rest(place: Place) -> Iterator[Rest]:
    headers = {"authorization": f"Bearer {place.key}"}
    with httpx.Client(base_url=place.url, headers=headers, timeout=120) as client:
        yield Rest(client)


@pytest.fixture(scope="module")
def rpc(place: Place) -> Iterator[Rpc]:
    with grpc.insecure_channel(place.grpc) as channel:
        yield Rpc(channel, place.key)


@pytest.fixture(scope="module")
def sessions(rest: Rest) -> dict[str, str]:
    """For each variant, a session that belongs to it."""
    found: dict[str, str] = {}
    body = {"model": "chat", "prompt": "x", "max_tokens": 1}
    for i in count():
        answer = rest.post("/v1/completions", body, session=f"parity-{i}")
        found.setdefault(answer.headers["x-manta-variant"], f"parity-{i}")
        if set(found) == set(VARIANTS):
            return found
        assert i < 100, f"100 sessions went to {sorted(found)}"
    raise AssertionError


def sampling_of(temperature: float) -> tuple[dict[str, Any], common_pb2.Sampling]:
    values: dict[str, Any] = {"max_tokens": MOST_TOKENS, "temperature": temperature, "seed": 7}
    return values, common_pb2.Sampling(**values)


@every_prompt
@every_variant
@every_sampling
def test_a_chat_has_the_same_tokens_whole_streamed_and_by_grpc(
    rest: Rest, rpc: Rpc, sessions: dict[str, str], prompt: str, variant: str, temperature: float
) -> None:
    values, sampling = sampling_of(temperature)
    body = {"model": "chat", "messages": [{"role": "user", "content": prompt}], "logprobs": True, "top_logprobs": 1, **values}
    whole = rest.chat(body, sessions[variant])
    assert whole.variant == variant
    assert whole.tokens
    assert rest.chat_stream(body, sessions[variant]) == whole
    assert rpc.chat(prompt, sampling, sessions[variant]) == whole


@every_prompt
@every_variant
@every_sampling
def test_a_completion_has_the_same_tokens_by_grpc(
    rest: Rest, rpc: Rpc, sessions: dict[str, str], prompt: str, variant: str, temperature: float
) -> None:
    values, sampling = sampling_of(temperature)
    whole = rest.complete({"model": "chat", "prompt": prompt, "logprobs": 1, **values}, sessions[variant])
    assert whole.variant == variant
    assert rpc.generate(prompt, sampling, sessions[variant]) == whole


@pytest.mark.parametrize("question", QUESTIONS)
@every_variant
def test_a_pipeline_gives_the_same_answer_and_citations_by_grpc(
    rest: Rest, rpc: Rpc, sessions: dict[str, str], question: str, variant: str
) -> None:
    values, sampling = sampling_of(0.0)
    body = {"model": "docs-assistant", "messages": [{"role": "user", "content": question}], **values}
    answer = rest.post("/v1/chat/completions", body, session=sessions[variant])
    document = answer.json()
    request = chat_pb2.AskRequest(model="docs-assistant", question=question, sampling=sampling)
    call = rpc.call("Ask", request, session=sessions[variant])
    messages = list(call)
    assert "".join(message.text for message in messages) == document["choices"][0]["message"]["content"]
    assert [passage for message in messages for passage in passages_of(message)] == [
        cited(citation) for citation in document["citations"]
    ]
    assert counted(messages[-1].usage) == used(document["usage"])
    trailing = dict(call.trailing_metadata())
    assert trailing["x-manta-variant"] == answer.headers["x-manta-variant"] == variant
    assert trailing["x-manta-pipeline-version"] == answer.headers["x-manta-pipeline-version"] == "v1"


def passages_of(message: chat_pb2.AskResponse) -> list[dict[str, Any]]:
    return [cited(MessageToDict(passage, preserving_proto_field_name=True)) for passage in message.citations]


def cited(citation: dict[str, Any]) -> dict[str, Any]:
    """Return a citation as both fronts give it; protobuf's JSON writes 64-bit numbers as texts and leaves out what is empty."""
    numbers = {name: int(citation.get(name) or 0) for name in ("number", "start", "end", "quote_start", "quote_end")}
    texts = {name: citation.get(name, "") for name in ("document_id", "title", "text", "quote")}
    return {**numbers, **texts, "headings": citation.get("headings", []), "score": round(citation["score"], 6)}


@pytest.mark.parametrize("texts", [pytest.param([text], id=f"prompt-{i}") for i, text in enumerate(PROMPTS)])
def test_an_embedding_is_the_same_by_grpc(rest: Rest, rpc: Rpc, texts: list[str]) -> None:
    answer = rest.post("/v1/embeddings", {"model": "minilm", "input": texts}).json()
    request = inference_pb2.EmbedRequest(model="minilm", input=texts)
    by_grpc = rpc.call("Embed", request)
    assert [list(embedding.values) for embedding in by_grpc.embeddings] == [
        pytest.approx(item["embedding"], abs=1e-6) for item in answer["data"]
    ]
    assert by_grpc.usage.prompt_tokens == answer["usage"]["prompt_tokens"]
