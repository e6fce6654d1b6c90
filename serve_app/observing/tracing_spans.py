"""What a trace tells of one record: its spans as plain values, made when it is over. Texts of clients are never among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from serve_app.observing.record import FAILED, NONE, RequestOutcome, RequestRecord, Timing
from serve_app.observing.tracing_context import TraceContext, new_span_id

Kind = Literal["server", "client", "internal"]
Attributes = Mapping[str, str | int | float | bool]

RPC_SERVICE = "manta.v1.Inference"
PROVIDER = "manta"
CANCELLED = "CancelledError"  # a stage that was cut short
SPAN_NAMES = MappingProxyType({"queue": "lease"})  # what is held is the request; what it waits for is a lease
CLIENT_STAGES = frozenset({"retrieve", "embed", "first_token", "answer"})  # another process works meanwhile

# The operations of OpenTelemetry's conventions for generative AI, by route or RPC. Others have no name there.
OPERATIONS = MappingProxyType(
    {
        "/v1/chat/completions": "chat",
        "/v1/chat/completions/batch": "chat",
        "/v1/responses": "chat",
        "/v1/messages": "chat",
        "/v1/completions": "text_completion",
        "/v1/embeddings": "embeddings",
        "/v2/embed": "embeddings",
        "/v1/vector_stores/{vector_store_id}/search": "retrieval",
        "Chat": "chat",
        "Ask": "chat",
        "Generate": "text_completion",
        "Embed": "embeddings",
        "Search": "retrieval",
    }
)


class Span(NamedTuple):
    """One span; times are nanoseconds of the wall clock."""

    name: str
    span_id: str
    parent_id: str
    kind: Kind
    began_ns: int
    ended_ns: int
    error: str | None
    attributes: Attributes


class Root(NamedTuple):
    """What a record's own span is called, and what is told of it."""

    name: str
    attributes: Attributes
    error: str | None = None


class Traced(NamedTuple):
    """One record's spans, its own first."""

    context: TraceContext
    spans: tuple[Span, ...]


def spans_of(record: RequestRecord, context: TraceContext, root: Root, *, now_ns: int) -> Traced:
    """Return the spans of a record that has just ended, at ``now_ns`` of the wall clock."""
    zero_ns = now_ns - round(record.ended_s * 1e9)
    own = Span(
        root.name,
        context.span_id,
        context.parent_id,
        "server",
        zero_ns + round(record.began_s * 1e9),
        now_ns,
        root.error,
        root.attributes,
    )
    parts = (_part(record, timing, context=context, zero_ns=zero_ns) for timing in (*record.timings, *record.details))
    return Traced(context, (own, *parts))


def request_root(record: RequestRecord) -> Root:
    """Return what is told of a client's request, by OpenTelemetry's conventions for HTTP, RPC and generative AI."""
    told: dict[str, str | int | float | bool] = {"manta.outcome": record.outcome.value, "manta.request_id": record.request_id}
    if record.front == "grpc":
        name = f"{RPC_SERVICE}/{record.endpoint}"
        told |= {"rpc.system.name": "grpc", "rpc.method": name}
        if record.status:
            told["rpc.response.status_code"] = record.status
    else:
        name = record.method if record.endpoint == NONE else f"{record.method} {record.endpoint}"
        told["http.request.method"] = record.method
        if record.endpoint != NONE:
            told["http.route"] = record.endpoint
        if record.status:
            told["http.response.status_code"] = record.status
    told.update(_gen_ai(record))
    told.update(_of_platform(record))
    if record.error is not None and record.outcome not in FAILED:
        told["error.type"] = record.error.code  # the client's fault: no failure of the server's span
    return Root(name, told, _failure(record))


def _gen_ai(record: RequestRecord) -> Iterator[tuple[str, str | int | float | bool]]:
    operation = OPERATIONS.get(record.endpoint)
    if operation is None:
        return
    yield "gen_ai.operation.name", operation
    yield "gen_ai.provider.name", PROVIDER
    if record.asked != NONE:
        yield "gen_ai.request.model", record.asked
    if record.answerer.model:
        yield "gen_ai.response.model", record.answerer.model
    if record.is_stream:
        yield "gen_ai.request.stream", True
        if record.ttft_s is not None:
            yield "gen_ai.response.time_to_first_chunk", record.ttft_s
    if record.usage is not None:
        yield "gen_ai.usage.input_tokens", record.usage.prompt
        if operation != "embeddings":
            yield "gen_ai.usage.output_tokens", record.usage.completion


def _of_platform(record: RequestRecord) -> Iterator[tuple[str, str | int | float | bool]]:
    answerer = record.answerer
    for name, value in (
        ("manta.variant", answerer.variant),
        ("manta.pipeline_version", answerer.pipeline_version),
        ("manta.adapter_version", answerer.adapter_version),
        ("manta.passages", record.passages),
        ("manta.attempts", len(record.attempts) or None),
    ):
        if value is not None:
            yield name, value
    if record.usage is not None and record.usage.is_estimated:
        yield "manta.usage_is_estimated", True


def _failure(record: RequestRecord) -> str | None:
    if record.outcome not in FAILED:
        return None
    return record.error.code if record.error is not None else record.outcome.value


def _part(record: RequestRecord, timing: Timing, *, context: TraceContext, zero_ns: int) -> Span:
    about: Attributes = timing.about
    error = timing.error
    if error == CANCELLED:
        error, about = _cut_short(record), {**about, "manta.is_cut_short": True}
    return Span(
        SPAN_NAMES.get(timing.stage, timing.stage),
        timing.span_id or new_span_id(),
        timing.parent_id or context.span_id,
        "client" if timing.stage in CLIENT_STAGES else "internal",
        zero_ns + round(timing.began_s * 1e9),
        zero_ns + round(timing.ended_s * 1e9),
        error,
        about,
    )


def _cut_short(record: RequestRecord) -> str | None:
    """Return why a stage ended before its time: a client that leaves is no error."""
    if record.outcome is RequestOutcome.CANCELLED or record.error is None:
        return None
    return record.error.code
