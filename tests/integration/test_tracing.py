"""Traces on real Ray: one RAG request, one trace through the processes of the Router, the Retriever and the Embedder."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.commands import ingest
from serve_app.config import PlatformConfig
from serve_app.ingest.command import IngestOptions
from serve_app.rpc.client import MantaClient
from tests.integration.conftest import CONFIG
from tests.integration.platform import Platform
from tests.otlp import ReceivedSpan, Receiver, http_receiver

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
QUESTION = {"model": "assistant", "messages": [{"role": "user", "content": "Where do penguins live?"}], "max_tokens": 4}
CHAIN = (
    ("router", "POST /v1/chat/completions"),
    ("router", "retrieve"),
    ("retriever", "retrieve"),
    ("retriever", "embed"),
    ("embedder", "embed"),
)
FOLLOW_S = 30.0  # Routers follow an edit within seconds


def config_of(folder: Path, collection: str, tracing: dict[str, Any]) -> dict[str, Any]:
    version = {"name": "v1", "embedder": "minilm", "collection": collection, "top_k": 1, "model": "chat"}
    version["prompt"] = "{% for hit in hits %}{{ hit.text }}\n{% endfor %}{{ question }}"
    return {
        **copy.deepcopy(CONFIG),
        "embedders": [{"name": "minilm", "source": "sentence-transformers/all-MiniLM-L6-v2"}],
        "pipelines": [{"name": "assistant", "versions": [version]}],
        "vector_store": {"uri": str(folder)},
        "tracing": tracing,
    }


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with http_receiver() as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces") / "lance"


@pytest.fixture
def traced(bare_platform: Platform, receiver: Receiver, folder: Path) -> Platform:
    bare_platform.deploy(config_of(folder, "birds", {"enabled": True, "endpoint": receiver.url}))
    wait_traced(bare_platform, receiver)
    receiver.spans.clear()
    return bare_platform


def wait_traced(platform: Platform, receiver: Receiver) -> None:
    """Ask until the Router knows of the edit."""
    deadline_s = time.monotonic() + FOLLOW_S
    while not receiver.wait(1, timeout_s=2.0):
        assert time.monotonic() < deadline_s, "no span came"
        httpx.get(f"{platform.url}/v1/models", timeout=30)


def spans_with(receiver: Receiver, *wanted: tuple[str, str], trace_id: str = "") -> list[ReceivedSpan]:
    """Wait for spans of these components and names, of any trace or of this one; return all that came of it."""
    deadline_s = time.monotonic() + 30
    while True:
        found = [span for span in receiver.wait(0) if span.trace_id.startswith(trace_id)]
        if set(wanted) <= (came := {(span.component, span.name) for span in found}):
            return found
        assert time.monotonic() < deadline_s, f"only these came: {sorted(came)}"
        receiver.wait(len(receiver.spans) + 1, timeout_s=1.0)


def fill(platform: Platform, folder: Path, texts: Path) -> None:
    texts.mkdir()
    (texts / "penguins.md").write_text("# Penguins\n\nPenguins live in the Antarctic.\n", encoding="utf-8")
    config = PlatformConfig.model_validate(config_of(folder, "birds", {}))
    assert ingest.run(IngestOptions(texts, "birds"), config, embedder=None, url=platform.url).failed == 0


def assert_chain(spans: list[ReceivedSpan], *, front: str) -> None:
    of = {(span.component, span.name): span for span in spans}
    chain = [of["router", front], *(of[key] for key in CHAIN[1:])]
    assert [below.parent_id for below in chain] == [SPAN, *(above.span_id for above in chain[:-1])]
    assert of["retriever", "search"].parent_id == of["retriever", "retrieve"].span_id
    assert {of["router", name].parent_id for name in ("authenticate", "lease", "first_token", "stream")} == {chain[0].span_id}
    assert not any(span.is_error for span in spans)


async def ask_by_grpc(platform: Platform) -> None:
    async with MantaClient(platform.grpc_target) as client:
        # The typed client sends no trace; whoever traces its client adds the header to the channel, as here.
        call = client._stub.Ask
        request = client_request()
        async for _ in call(request, metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"),)):
            pass


def client_request() -> Any:
    from serve_app.protos.manta.v1 import chat_pb2

    return chat_pb2.AskRequest(model="assistant", question="Where do penguins live?")


def test_a_rag_request_is_one_trace_over_three_processes_and_both_fronts(
    traced: Platform, receiver: Receiver, folder: Path, tmp_path: Path
) -> None:
    fill(traced, folder, tmp_path / "birds")
    receiver.spans.clear()
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    answer = httpx.post(f"{traced.url}/v1/chat/completions", json={**QUESTION, "stream": True}, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    assert_chain(spans_with(receiver, *CHAIN, trace_id=TRACE), front=CHAIN[0][1])
    receiver.spans.clear()
    asyncio.run(ask_by_grpc(traced))
    rpc = "manta.v1.Inference/Ask"
    assert_chain(spans_with(receiver, ("router", rpc), *CHAIN[1:], trace_id=TRACE), front=rpc)


def test_a_stage_that_fails_shows_in_each_process_that_saw_it(traced: Platform, receiver: Receiver, folder: Path) -> None:
    traced.deploy(config_of(folder, "nothing", {"enabled": True, "endpoint": receiver.url}))
    deadline_s = time.monotonic() + FOLLOW_S
    while httpx.post(f"{traced.url}/v1/chat/completions", json=QUESTION, timeout=60).status_code != 409:
        assert time.monotonic() < deadline_s
    spans = spans_with(receiver, ("router", "retrieve"), ("retriever", "check"))
    wrong = {(s.component, s.name, s.attributes["error.type"]) for s in spans if s.is_error}
    assert ("router", "retrieve", "collection_empty") in wrong
    assert ("retriever", "retrieve", "collection_empty") in wrong


def test_tracing_goes_on_and_off_without_a_restart(traced: Platform, receiver: Receiver, folder: Path) -> None:
    def replicas() -> dict[str, list[str]]:
        apps = traced.cluster.applications()
        return {
            f"{name}/{deployment}": sorted(replica["replica_id"] for replica in found["replicas"])
            for name, app in apps.items()
            for deployment, found in app["deployments"].items()
        }

    before = replicas()
    traced.deploy(config_of(folder, "birds", {}))
    deadline_s = time.monotonic() + FOLLOW_S
    while httpx.get(f"{traced.url}/v1/models", timeout=30).status_code == 200:
        receiver.spans.clear()
        if not receiver.wait(1, timeout_s=3.0):
            break
        assert time.monotonic() < deadline_s, "spans still come"
    assert replicas() == before
