"""gRPC: the generated stubs on grpcio, the package's own client, health and reflection."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import openai
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serve_app.errors import UnknownModel
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2
from serve_app.rpc.client import MantaClient, Message, Sampling
from tests.e2e.clients.checks import ABOUT, PROMPT, QUESTION, Checks
from tests.e2e.clients.grpc_channel import (
    GREEDY,
    HERE,
    channel,
    chat_request,
    refused,
    struct,
    stub,
    text_of,
    with_key,
)

check = Checks()


@check("list-models")
def list_models() -> str:
    answer = stub.ListModels(inference_pb2.ListModelsRequest(), **with_key(HERE.key))
    kinds = {model.id: inference_pb2.ModelKind.Name(model.kind) for model in answer.models}
    assert kinds == {
        "chat": "MODEL_KIND_MODEL",
        "docs-assistant": "MODEL_KIND_PIPELINE",
        "minilm": "MODEL_KIND_EMBEDDER",
    }, kinds
    return ", ".join(kinds)


@check("list-models-admin")
def list_models_admin() -> str:
    def variants(key: str) -> list[tuple[str, int]]:
        answer = stub.ListModels(inference_pb2.ListModelsRequest(), **with_key(key))
        return sorted((v.name, v.weight) for model in answer.models if model.id == "chat" for v in model.variants)

    assert variants(HERE.key) == []
    assert variants(HERE.admin_key) == [("canary", 50), ("stable", 50)]
    return "variants and weights for an admin's key only"


@check("chat")
def chat() -> str:
    call = stub.Chat(chat_request(), **with_key(HERE.key))
    answer = list(call)
    assert len(answer) > 5, "the answer did not come in pieces"
    assert answer[0].origin.model == "chat"
    assert answer[0].origin.variant in {"stable", "canary"}
    assert answer[-1].usage.completion_tokens > 5
    reasons = [c.finish_reason for m in answer for c in m.choices if c.finish_reason]
    assert reasons == [common_pb2.FINISH_REASON_STOP]
    return text_of(answer)


@check("metadata")
def metadata() -> str:
    sent = (("authorization", f"Bearer {HERE.key}"), ("x-request-id", "matrix-grpc"), ("x-session-id", "a"))
    call = stub.Chat(chat_request(), metadata=sent, timeout=120)
    list(call)
    trailing = dict(call.trailing_metadata())
    assert trailing["x-request-id"] == "matrix-grpc"
    assert trailing["x-manta-model"] == "chat"
    return f"variant {trailing['x-manta-variant']}"


@check("chat-tools")
def chat_tools() -> str:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    tool = chat_pb2.Tool(name="weather", parameters=struct(schema))
    request = chat_request(tools=[tool], tool_choice=chat_pb2.ToolChoice(name="weather"))
    calls = [c for m in stub.Chat(request, **with_key(HERE.key)) for choice in m.choices for c in choice.delta.tool_calls]
    assert "".join(call.name for call in calls) == "weather"
    arguments = "".join(call.arguments for call in calls)
    assert "city" in arguments
    return arguments


@check("chat-structured")
def chat_structured() -> str:
    schema = {
        "type": "object",
        "properties": {"verdict": {"enum": ["yes", "no"]}},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    form = chat_pb2.ResponseFormat.JsonSchema(name="verdict", schema=struct(schema))
    answer = list(stub.Chat(chat_request(response_format=chat_pb2.ResponseFormat(json_schema=form)), **with_key(HERE.key)))
    assert text_of(answer).replace(" ", "") in ('{"verdict":"yes"}', '{"verdict":"no"}')
    return text_of(answer)


@check("chat-logprobs")
def chat_logprobs() -> str:
    answer = list(stub.Chat(chat_request(logprobs=True, top_logprobs=2), **with_key(HERE.key)))
    tokens = [token for message in answer for choice in message.choices for token in choice.logprobs]
    assert len(tokens) > 5
    assert {len(token.top) for token in tokens} == {2}
    return f"{len(tokens)} tokens"


@check("generate")
def generate() -> str:
    request = inference_pb2.GenerateRequest(
        model="chat",
        prompt="import os",
        sampling=common_pb2.Sampling(max_tokens=4, temperature=0),
        extra=struct({"ignore_eos": True}),
    )
    answer = stub.Generate(request, **with_key(HERE.key))
    assert answer.usage.completion_tokens == 4
    assert answer.choices[0].finish_reason == common_pb2.FINISH_REASON_LENGTH
    return repr(answer.choices[0].text)


@check("embed")
def embed() -> str:
    answer = stub.Embed(inference_pb2.EmbedRequest(model="minilm", input=["one", "two"]), **with_key(HERE.key))
    assert [len(embedding.values) for embedding in answer.embeddings] == [384, 384]
    assert answer.usage.prompt_tokens > 0
    return "384 numbers"


@check("search")
def search() -> str:
    answer = stub.Search(inference_pb2.SearchRequest(collection="docs", query=QUESTION, top_k=3), **with_key(HERE.key))
    assert [passage.number for passage in answer.passages] == [1, 2, 3]
    assert ABOUT in {passage.document_id for passage in answer.passages}
    return f"{len(answer.passages)} passages"


@check("search-vector-store")
def search_vector_store() -> str:
    with openai.OpenAI(base_url=HERE.v1, api_key=HERE.key, timeout=120) as client:
        made = client.vector_stores.create(name="by-grpc")
        try:
            moon = ("moon.md", b"# The moon\n\nThe moon is made of green cheese, says the tale.\n")
            client.vector_stores.files.upload_and_poll(vector_store_id=made.id, file=moon, poll_interval_ms=200)
            request = inference_pb2.SearchRequest(collection=made.id, query="What is the moon made of?")
            [passage] = stub.Search(request, **with_key(HERE.key)).passages
            refused(lambda: [stub.Search(request, **with_key(HERE.other_key))], grpc.StatusCode.NOT_FOUND)
        finally:
            client.vector_stores.delete(made.id)
    assert "green cheese" in passage.text
    return "for its own tenant only"


@check("ask")
def ask() -> str:
    request = chat_pb2.AskRequest(model="docs-assistant", question=QUESTION, sampling=GREEDY)
    answer = list(stub.Ask(request, **with_key(HERE.key)))
    assert answer[0].origin.pipeline_version == "v1"
    [citations] = [list(message.citations) for message in answer if message.citations]
    assert ABOUT in {passage.document_id for passage in citations}
    assert all(passage.quote in passage.text for passage in citations)
    assert answer[-1].usage.completion_tokens > 0
    return f"{''.join(message.text for message in answer)} ({len(citations)} citations)"


@check("ask-overrides")
def ask_overrides() -> str:
    retrieval = chat_pb2.Retrieval(top_k=1)
    request = chat_pb2.AskRequest(model="docs-assistant", question=QUESTION, sampling=GREEDY, retrieval=retrieval)
    [citations] = [list(m.citations) for m in stub.Ask(request, **with_key(HERE.key)) if m.citations]
    assert len(citations) == 1
    request.retrieval.top_k = 99
    return str(refused(lambda: stub.Ask(request, **with_key(HERE.key)), grpc.StatusCode.INVALID_ARGUMENT).details())


@check("typed-client")
def typed_client() -> str:
    async def use() -> tuple[str, list[str]]:
        async with MantaClient(HERE.grpc, api_key=HERE.key, timeout_s=120) as client:
            chunks = client.chat("chat", [Message("user", PROMPT)], sampling=Sampling(max_tokens=40, temperature=0))
            text = "".join([chunk.text async for chunk in chunks])
            asked = [chunk async for chunk in client.ask("docs-assistant", QUESTION)]
            try:
                await client.generate("nobody", "x")
            except UnknownModel:
                return text, [passage.document_id for chunk in asked for passage in chunk.citations]
            raise AssertionError("no UnknownModel")

    text, documents = asyncio.run(use())
    assert text == text_of(list(stub.Chat(chat_request(), **with_key(HERE.key))))
    assert ABOUT in documents
    return f"{text} ({len(documents)} citations)"


@check("health")
def health() -> str:
    made: Any = health_pb2_grpc.HealthStub(channel)
    answer = made.Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    return "SERVING"


@check("reflection")
def reflection() -> str:
    made: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    [answer] = made.ServerReflectionInfo(requests, timeout=30)
    names = {service.name for service in answer.list_services_response.service}
    assert "manta.v1.Inference" in names, names
    return ", ".join(sorted(names))


@check("x-api-key")
def x_api_key() -> str:
    answer = stub.ListModels(inference_pb2.ListModelsRequest(), metadata=(("x-api-key", HERE.key),), timeout=30)
    return f"{len(answer.models)} models"


if __name__ == "__main__":
    with channel:
        check.run()
