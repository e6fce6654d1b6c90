from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv._incubating.attributes import error_attributes as errors
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.attributes import http_attributes as http
from opentelemetry.semconv._incubating.attributes import rpc_attributes as rpc

from serve_app.config_tracing import TracingConfig
from serve_app.contracts import CollectionInfo, TraceLink
from serve_app.observing.record import RequestRecord, current_link, working_on
from serve_app.observing.tracing import StageTracing, Tracing
from serve_app.observing.tracing_context import arrived
from serve_app.observing.tracing_spans import OPERATIONS
from serve_app.rest.relayed import RELAYED_PATHS
from serve_app.rest.vector_stores import routes as store_routes
from serve_app.upstream import ReplicaUnreachable
from tests.unit.deployments.test_retriever import PRINT, FakeStore
from tests.unit.serve_app.fakes import BROKEN, FakeClock, FakeResponse, entry, gateway, snapshot, turns, upstream_of
from tests.unit.serve_app.fakes import document as routing
from tests.unit.serve_app.observing.test_records import STREAM, streamed
from tests.unit.serve_app.observing.tracings import (
    NOT_SAMPLED,
    NOW_NS,
    ON,
    PARENT,
    SPAN,
    TRACE,
    Traces,
    error_of,
    graph,
    ids,
    record,
)
from tests.unit.serve_app.observing.watching import Watched
from tests.unit.serve_app.rest.front import ASK, CHAT, ready
from tests.unit.serve_app.rpc.front import END, LAST, word

RAG = {**STREAM, "model": "docs"}
STREAMED = (word("a"), word("b"), END, LAST)


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_one_rag_request_is_one_trace_through_all_its_processes() -> None:
    traces = Traces()
    watched = Watched(graph(traces, streamed(*STREAMED)))
    traces.watch(watched)
    assert (await watched.request("POST", CHAT, json=RAG)).status_code == 200
    assert traces.trace_ids == {watched.record.trace_id}
    assert traces.names[0] == f"POST {CHAT}"
    assert sorted(traces.names[1:]) == ["admit", "authenticate", "first_token", "lease", "pick", "prompt", "retrieve", "stream"]
    chain = [
        traces.named(f"POST {CHAT}"),
        traces.named("retrieve"),
        traces.named("retrieve", "retriever"),
        traces.named("embed", "retriever"),
        traces.named("embed", "embedder"),
    ]
    for above, below in pairwise(chain):
        assert below.parent is not None
        assert below.parent.span_id == above.context.span_id
    search = traces.named("search", "retriever")
    assert search.parent is not None
    assert search.parent.span_id == chain[2].context.span_id
    assert len(ids(traces.spans)) == len(traces.spans)


async def test_both_fronts_make_the_same_trace() -> None:
    traces = Traces()
    watched = Watched(graph(traces, streamed(*STREAMED), streamed(*STREAMED)))
    traces.watch(watched)
    await watched.request("POST", CHAT, json=RAG)
    of_rest = sorted(traces.names[1:])
    traces.spans.clear()
    async with watched.grpc() as client:
        async for _ in client.ask("docs", "Why?"):
            pass
    root = traces.named("manta.v1.Inference/Ask")
    assert sorted(traces.names[1:]) == of_rest
    assert len(traces.trace_ids) == 1
    assert told(root)[rpc.RPC_SYSTEM_NAME] == "grpc"
    assert told(root)[rpc.RPC_METHOD] == "manta.v1.Inference/Ask"
    assert told(root)[rpc.RPC_RESPONSE_STATUS_CODE] == "OK"


async def test_a_clients_trace_goes_on_here_and_on_the_replica() -> None:
    traces = Traces()
    made = ready(FakeResponse(), tracing=ON)
    watched = Watched(made)
    traces.watch(watched)
    await watched.request("POST", CHAT, json=ASK, headers={"traceparent": PARENT, "tracestate": "vendor=1"})
    root, answer = traces.named(f"POST {CHAT}"), traces.named("answer")
    assert (watched.record.trace_id, traces.trace_ids) == (TRACE, {TRACE})
    assert root.parent is not None
    assert (f"{root.parent.span_id:016x}", root.parent.is_remote, root.context.trace_state.get("vendor")) == (SPAN, True, "1")
    [request] = upstream_of(made).requests
    assert request.trace == TraceLink(f"00-{TRACE}-{answer.context.span_id:016x}-01", "vendor=1", request.trace.export)  # type: ignore[union-attr]


async def test_a_clients_trace_goes_on_over_grpc_too() -> None:
    traces = Traces()
    watched = Watched(ready(streamed(*STREAMED), tracing=ON))
    traces.watch(watched)
    async with watched.grpc() as client:
        channel = client._channel
        call = channel.unary_unary("/manta.v1.Inference/ListModels")
        await call(b"", metadata=(("traceparent", PARENT),))
    assert traces.trace_ids == {TRACE}


async def test_what_a_client_does_not_sample_leaves_no_span_and_the_replica_hears_so() -> None:
    traces = Traces()
    made = ready(FakeResponse(), tracing=ON)
    watched = Watched(made)
    traces.watch(watched)
    await watched.request("POST", CHAT, json=ASK, headers={"traceparent": NOT_SAMPLED})
    [request] = upstream_of(made).requests
    assert (traces.sinks, watched.record.trace_id) == ([], TRACE)
    assert request.trace is not None
    assert (request.trace.traceparent[:35], request.trace.traceparent[-3:]) == (f"00-{TRACE}", "-00")
    assert request.trace.export == ""


async def test_a_ratio_of_zero_samples_only_what_clients_do() -> None:
    traces = Traces()
    watched = Watched(ready(FakeResponse(), tracing=ON.model_copy(update={"sample_ratio": 0.0})))
    traces.watch(watched)
    await watched.request("POST", CHAT, json=ASK)
    assert (traces.spans, len(watched.record.trace_id)) == ([], 32)
    await watched.request("POST", CHAT, json=ASK, headers={"traceparent": PARENT})
    assert traces.trace_ids == {TRACE}


async def test_off_nothing_is_made_and_nothing_is_passed_on() -> None:
    traces = Traces()
    made = ready(FakeResponse())
    watched = Watched(made)
    traces.watch(watched)
    await watched.request("POST", CHAT, json=ASK, headers={"traceparent": PARENT})
    assert (traces.sinks, watched.record.trace, watched.record.trace_id) == ([], None, "")
    assert [request.trace for request in upstream_of(made).requests] == [None]


async def test_a_stage_that_fails_in_another_process_shows_there_and_on_the_way_to_it() -> None:
    traces = Traces()
    watched = Watched(graph(traces, store=FakeStore(None)))
    traces.watch(watched)
    assert (await watched.request("POST", CHAT, json=RAG)).status_code == 409
    wrong = {
        (span.name, span.resource.attributes["manta.component"]): error_of(span) for span in traces.spans if error_of(span)
    }
    assert wrong == {
        ("retrieve", "router"): "collection_empty",
        ("retrieve", "retriever"): "collection_empty",
        ("check", "retriever"): "collection_empty",
    }
    root = traces.named(f"POST {CHAT}")
    assert (told(root)[errors.ERROR_TYPE], told(root)[http.HTTP_RESPONSE_STATUS_CODE]) == ("collection_empty", 409)
    assert len(traces.trace_ids) == 1


async def test_a_store_that_breaks_fails_the_search_and_the_request() -> None:
    def break_down() -> None:
        raise OSError("disk /secret is gone")

    store = FakeStore(CollectionInfo("books", PRINT, chunks=1, documents=1), on_search=break_down)
    traces = Traces()
    watched = Watched(graph(traces, store=store))
    traces.watch(watched)
    assert (await watched.request("POST", CHAT, json=RAG)).status_code == 500
    assert error_of(traces.named("search", "retriever")) == "OSError"
    assert error_of(traces.named("retrieve", "retriever")) == "OSError"
    assert error_of(traces.named(f"POST {CHAT}")) == "internal_error"
    assert "secret" not in str([(span.attributes, span.status.description) for span in traces.spans])


async def test_a_stream_that_breaks_fails_its_span_and_the_requests() -> None:
    traces = Traces()
    watched = Watched(ready(streamed(word("a"), BROKEN), tracing=ON))
    traces.watch(watched)
    await watched.request("POST", CHAT, json=STREAM)
    assert {span.name: error_of(span) for span in traces.spans if error_of(span)} == {
        "stream": "broken",
        f"POST {CHAT}": "broken",
    }


async def test_an_attempt_that_fails_shows_beside_the_one_that_answers() -> None:
    traces = Traces()
    made = gateway(ReplicaUnreachable("gone", was_sent=False), FakeResponse())
    made.update(snapshot(entry("r1"), entry("r2"), routing=routing(tracing=ON)))
    watched = Watched(made)
    traces.watch(watched)
    await watched.request("POST", CHAT, json=ASK)
    attempts = [span for span in traces.spans if span.name == "answer"]
    assert [error_of(span) for span in attempts] == ["ReplicaUnreachable", None]
    assert {told(span)["manta.replica"] for span in attempts} == {"r1", "r2"}
    root = traces.named(f"POST {CHAT}")
    assert (error_of(root), told(root)["manta.attempts"]) == (None, 2)


async def test_a_first_byte_that_is_late_fails_its_stage() -> None:
    traces = Traces()
    [model] = routing().models
    impatient = model.model_copy(update={"first_byte_timeout_s": 0.001})
    made = ready(streamed(asyncio.Event()), tracing=ON, models=(impatient,))
    watched = Watched(made)
    traces.watch(watched)
    assert (await watched.request("POST", CHAT, json=STREAM)).status_code == 504
    assert error_of(traces.named("first_token")) == "TimeoutError"


async def test_a_client_that_leaves_is_no_error_of_any_stage() -> None:
    traces = Traces()
    watched = Watched(ready(streamed(asyncio.Event()), tracing=ON))
    traces.watch(watched)
    asked = asyncio.create_task(watched.request("POST", CHAT, json=STREAM))
    await turns(200)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert [error_of(span) for span in traces.spans if error_of(span)] == []
    assert told(traces.named("first_token"))["manta.is_cut_short"] is True
    assert told(traces.named(f"POST {CHAT}"))["manta.outcome"] == "cancelled"


async def test_a_request_is_told_by_the_conventions_and_without_its_texts() -> None:
    traces = Traces()
    watched = Watched(graph(traces, streamed(*STREAMED)))
    traces.watch(watched)
    await watched.request("POST", CHAT, json={**RAG, "user": "ann"}, headers={"x-request-id": "q1"})
    root = told(traces.named(f"POST {CHAT}"))
    ttft_s = root.pop(gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)
    assert ttft_s == watched.record.ttft_s
    assert root == {
        http.HTTP_REQUEST_METHOD: "POST",
        http.HTTP_ROUTE: CHAT,
        http.HTTP_RESPONSE_STATUS_CODE: 200,
        gen_ai.GEN_AI_OPERATION_NAME: gen_ai.GenAiOperationNameValues.CHAT.value,
        gen_ai.GEN_AI_PROVIDER_NAME: "manta",
        gen_ai.GEN_AI_REQUEST_MODEL: "docs",
        gen_ai.GEN_AI_RESPONSE_MODEL: "chat",
        gen_ai.GEN_AI_REQUEST_STREAM: True,
        gen_ai.GEN_AI_USAGE_INPUT_TOKENS: 3,
        gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: 2,
        "manta.variant": "stable",
        "manta.pipeline_version": "v1",
        "manta.passages": 1,
        "manta.attempts": 1,
        "manta.outcome": "ok",
        "manta.request_id": "q1",
    }
    everything = str([span.to_json() for span in traces.spans])
    assert ("Why?" in everything, "ann" in everything, "tenant" in everything) == (False, False, False)
    found = told(traces.named("retrieve", "retriever"))
    assert (found[gen_ai.GEN_AI_OPERATION_NAME], found[gen_ai.GEN_AI_DATA_SOURCE_ID]) == ("retrieval", "books")


async def test_an_embedding_is_traced_to_its_embedder() -> None:
    traces = Traces()
    watched = Watched(graph(traces))
    traces.watch(watched)
    await watched.request("POST", "/v1/embeddings", json={"model": "minilm", "input": ["a", "b"]})
    own, there = traces.named("embed"), traces.named("embed", "embedder")
    assert there.parent is not None
    assert there.parent.span_id == own.context.span_id
    assert told(there)["manta.texts"] == 2
    assert told(traces.named("POST /v1/embeddings"))[gen_ai.GEN_AI_OPERATION_NAME] == "embeddings"


def test_times_are_of_the_wall_clock_and_parts_lie_within_the_whole() -> None:
    clock, traces = FakeClock(), Traces()
    tracing = Tracing(lambda: ON, traces.delivery("router"))
    made = RequestRecord(clock=clock, began_s=clock(), is_stream=True)
    tracing.began(made)
    clock.now_s += 1
    with made.stage("admit"):
        clock.now_s += 2
    made.begin_answer()
    clock.now_s += 4
    made.close()
    tracing.ended(made)
    seconds = {s.name: ((s.start_time or 0) / 1e9 - NOW_NS / 1e9, (s.end_time or 0) / 1e9 - NOW_NS / 1e9) for s in traces.spans}
    assert seconds == {"": (-7, 0), "admit": (-6, -4), "stream": (-4, 0)}


async def test_probes_leave_no_span_and_nothing_behind() -> None:
    traces = Traces()
    watched = Watched(ready(tracing=ON))
    traces.watch(watched)
    for path in ("/healthz", "/readyz", "/metrics"):
        await watched.request("GET", path)
    async with watched.grpc() as client:
        await client._channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    assert (traces.spans, traces.sinks) == ([], [])


async def test_an_edit_of_the_configuration_is_in_force_at_the_next_request() -> None:
    traces = Traces()
    made = ready(FakeResponse())
    watched = Watched(made)
    tracing = traces.watch(watched)
    elsewhere = ON.model_copy(update={"endpoint": "http://other:4318"})
    for version, config in enumerate((ON, ON.model_copy(), elsewhere, TracingConfig()), start=2):
        made.update(snapshot(entry("r1"), routing=routing(tracing=config), version=version))
        await watched.request("POST", CHAT, json=ASK)
    assert [(sink.config.endpoint, sink.closed) for sink in traces.sinks] == [(ON.endpoint, [0.0]), (elsewhere.endpoint, [0.0])]
    made.update(snapshot(entry("r1"), routing=routing(tracing=ON), version=9))
    await watched.request("POST", CHAT, json=ASK)
    await tracing.close()
    [left] = traces.sinks[-1].closed
    assert left > 0


async def test_a_stage_hears_of_an_edit_with_the_next_request() -> None:
    traces = Traces()
    stage = StageTracing("retriever", delivery=traces.delivery("retriever"))
    for config in (ON, ON.model_copy(update={"service_name": "other"})):
        context = arrived(None, None, ratio=1, export=config.model_dump_json())
        with stage.joined(context.link("00f067aa0ba902b7"), "retrieve", {}):
            pass
    assert [span.resource.attributes["service.name"] for span in traces.spans] == ["manta", "other"]


@pytest.mark.parametrize(
    "link",
    [None, TraceLink(NOT_SAMPLED, "", "{}"), TraceLink(PARENT), TraceLink("?", "", "{}"), TraceLink(PARENT, "", '{"new": 1}')],
    ids=["no-link", "not-sampled", "no-receiver", "malformed", "of-another-release"],
)
async def test_a_stage_without_a_trace_to_join_works_as_ever(link: TraceLink | None) -> None:
    traces = Traces()
    stage = StageTracing("retriever", delivery=traces.delivery("retriever"))
    with stage.joined(link, "retrieve", {}):
        assert current_link() is None
    assert traces.sinks == []


async def test_a_sink_that_fails_costs_the_stage_nothing(caplog: pytest.LogCaptureFixture) -> None:
    traces = Traces()
    stage = StageTracing("retriever", delivery=traces.delivery("retriever"))
    with stage.joined(TraceLink("00-" + "a" * 32 + "-" + "b" * 16 + "-01", "", ON.model_dump_json()), "x", {"odd": object()}):  # type: ignore[dict-item]
        traces.spans = None  # type: ignore[assignment]
    assert "the spans of a stage could not be made" in caplog.text


def test_without_a_trace_details_are_not_timed() -> None:
    made = record()
    with made.detail("pick"), working_on(made), made.stage("queue"):
        assert current_link() is None
    assert (made.details, [timing.stage for timing in made.timings]) == ([], ["queue"])


def test_every_traced_operation_is_one_of_the_conventions_and_of_the_platform() -> None:
    values = {each.value for each in gen_ai.GenAiOperationNameValues}
    assert set(OPERATIONS.values()) <= values
    stores = {route.template for route in store_routes(None, None)}  # type: ignore[arg-type]
    rpcs = {"Chat", "Ask", "Generate", "Embed", "Search"}
    assert set(OPERATIONS) <= {*RELAYED_PATHS, *stores, *rpcs}
