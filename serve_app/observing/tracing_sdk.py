"""OpenTelemetry's SDK with its OTLP exporters. Imported only where spans are sent; the process's own provider is left alone.

A span is made complete, from what is known when its request is over: a provider's live spans cost ten times as much, and
would have to be made before it is known whether a request counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from serve_app.config_tracing import HTTP, TracingConfig
from serve_app.observing.tracing_spans import Span, Traced

EXPORT_TIMEOUT_S = 5  # of one batch, with all tries
KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
UNSET = Status(StatusCode.UNSET)
SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class SpanMaker:
    """Makes the SDK's spans."""

    def __init__(self, resource: Mapping[str, str]) -> None:
        self._resource = Resource.create(resource)
        self._scope = InstrumentationScope("manta", version("manta-serve"))

    def make(self, traced: Traced) -> list[ReadableSpan]:
        """Return the spans of one record."""
        context = traced.context
        trace_id = int(context.trace_id, 16)
        state = TraceState.from_header([context.state]) if context.state else None

        def place(span_id: str, *, is_remote: bool = False) -> SpanContext:
            return SpanContext(trace_id, int(span_id, 16), is_remote, SAMPLED, state)

        places = {span.span_id: place(span.span_id) for span in traced.spans}
        if context.parent_id:
            places[context.parent_id] = place(context.parent_id, is_remote=True)
        for span in traced.spans:
            if span.parent_id and span.parent_id not in places:  # of a stage that has not ended
                places[span.parent_id] = place(span.parent_id)
        return [self._made(span, places[span.span_id], places.get(span.parent_id)) for span in traced.spans]

    def _made(self, span: Span, place: SpanContext, parent: SpanContext | None) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            place,
            parent,
            self._resource,
            {**span.attributes, "error.type": span.error} if span.error is not None else span.attributes,
            kind=KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error is not None else UNSET,
            start_time=span.began_ns,
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )


def open_exporter(config: TracingConfig, headers: Mapping[str, str] | None) -> SpanExporter:
    """Return the exporter that the configuration names; it connects when it first has something to send.

    Raises:
        ImportError: its package is not installed.
    """
    if config.protocol == HTTP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter(endpoint=config.target, headers=headers, timeout=EXPORT_TIMEOUT_S)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

    return GrpcExporter(endpoint=config.target, headers=dict(headers) if headers else None, timeout=EXPORT_TIMEOUT_S)
