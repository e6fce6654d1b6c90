"""Traces in memory: made by OpenTelemetry's SDK as the writer makes them, without its thread and its receiver."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from deployments.embedder import Embedder
from deployments.handles import Asked, HandleEmbedder, HandleRetriever, LazyHandle
from deployments.retriever import Retriever
from deployments.tries import Patience
from serve_app.config_tracing import TracingConfig
from serve_app.contracts import CollectionInfo
from serve_app.gateway import Gateway, Stages
from serve_app.observing.record import RequestRecord
from serve_app.observing.recorder import Recorder
from serve_app.observing.tracing import Delivery, StageTracing, Tracing
from serve_app.observing.tracing_sdk import SpanMaker
from serve_app.observing.tracing_spans import Traced
from tests.unit.deployments.test_embedder import CONFIG, LengthEncoder, join_what_waits
from tests.unit.deployments.test_retriever import PRINT, FakeStore
from tests.unit.serve_app.fakes import Answer, FakeClock, FakeUpstream, Woken, document, entry, snapshot
from tests.unit.serve_app.observing.watching import Watched

ON = TracingConfig(enabled=True, endpoint="http://collector:4318")
NOW_NS = 1_700_000_000_000_000_000
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
NOT_SAMPLED = f"00-{TRACE}-{SPAN}-00"


class MemorySink:
    """Keeps the spans of one process."""

    def __init__(self, config: TracingConfig, component: str, into: list[ReadableSpan]) -> None:
        self.config = config
        self.closed: list[float] = []
        self._maker = SpanMaker({"service.name": config.service_name, "manta.component": component})
        self._into = into

    def put(self, traced: Traced) -> None:
        """Keep a record's spans."""
        self._into += self._maker.make(traced)

    def close(self, timeout_s: float) -> None:
        """Note it."""
        self.closed.append(timeout_s)


class Traces:
    """All spans of a platform, of whichever process."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.sinks: list[MemorySink] = []

    def delivery(self, component: str) -> Delivery:
        """Return where a process delivers its spans."""

        def opened(config: TracingConfig, component: str) -> MemorySink:
            self.sinks.append(MemorySink(config, component, self.spans))
            return self.sinks[-1]

        return Delivery(component, open_sink=opened, now_ns=lambda: NOW_NS)

    def watch(self, watched: Watched) -> Tracing:
        """Trace the requests of a platform of fakes."""
        gateway = watched.inference.gateway
        tracing = Tracing(lambda: gateway.view.document.tracing, self.delivery("router"))
        watched.inference.recorder = Recorder([tracing, watched.kept])
        return tracing

    def named(self, name: str, component: str = "router") -> ReadableSpan:
        """Return the only span of this name that a process made."""
        [found] = [
            span for span in self.spans if span.name == name and span.resource.attributes["manta.component"] == component
        ]
        return found

    @property
    def names(self) -> list[str]:
        """The spans of the Router, in the order they began."""
        own = [span for span in self.spans if span.resource.attributes["manta.component"] == "router"]
        return [span.name for span in sorted(own, key=lambda span: (span.start_time or 0, span.parent is not None))]

    @property
    def trace_ids(self) -> set[str]:
        """The traces that the spans belong to."""
        return {f"{span.context.trace_id:032x}" for span in self.spans}


class Elsewhere:
    """A handle whose deployment is in this process, yet shares with its caller what pickled arguments carry, nothing else."""

    def __init__(self, target: object) -> None:
        self._target = target

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the method."""
        sent, named = pickle.loads(pickle.dumps((args, kwargs)))  # noqa: S301
        work = getattr(self._target, method)(*sent, **named)
        return await asyncio.create_task(work, context=contextvars.Context())

    async def read_within(self, patience: Patience, method: str, asked: Callable[[float], Asked]) -> Any:
        """Call the method."""
        args, kwargs = asked(patience.total_s)
        return await self.call(method, *args, **kwargs)


class _To(HandleRetriever):
    def __init__(self, target: object) -> None:
        self._handle: LazyHandle = Elsewhere(target)  # type: ignore[assignment]


class _ToEmbedder(HandleEmbedder):
    def __init__(self, target: object) -> None:
        super().__init__("embedder.minilm")
        self._handle: LazyHandle = Elsewhere(target)  # type: ignore[assignment]


def graph(traces: Traces, *answers: Answer, store: FakeStore | None = None) -> Gateway:
    """Return a gateway with a Retriever and an Embedder of their own processes behind it."""
    embedder = Embedder(CONFIG, load=lambda _: LengthEncoder(), batch=join_what_waits)
    embedder.tracing = StageTracing("embedder", delivery=traces.delivery("embedder"))
    found = store or FakeStore(CollectionInfo("books", PRINT, chunks=1, documents=1))
    retriever = Retriever([], found, embedders={"minilm": _ToEmbedder(embedder)})
    retriever.tracing = StageTracing("retriever", delivery=traces.delivery("retriever"))
    stages = Stages(retriever=_To(retriever), embedders={"minilm": _ToEmbedder(embedder)})
    made = Gateway(upstream=FakeUpstream(list(answers)), wake=Woken(), stages=stages, clock=FakeClock())
    made.update(snapshot(entry("r1"), routing=document(tracing=ON)))
    return made


def record(**more: Any) -> RequestRecord:
    """Return a record of a fake clock."""
    return RequestRecord(clock=FakeClock(), **more)


def error_of(span: ReadableSpan) -> object:
    """Return what a span failed with; None where it did not fail."""
    return (span.attributes or {}).get("error.type") if span.status.status_code.name == "ERROR" else None


def ids(spans: Sequence[ReadableSpan]) -> set[int]:
    """Return the ids of spans."""
    return {span.context.span_id for span in spans}
