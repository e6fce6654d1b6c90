from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Mapping

import pytest
from opentelemetry import trace as process_wide

from serve_app.commands.run import require_tracing
from serve_app.config import PlatformConfig
from serve_app.config_tracing import TracingConfig
from serve_app.errors import CommandError
from serve_app.observing import tracing_writer
from serve_app.observing.tracing import Delivery, Tracing, open_writer
from serve_app.observing.tracing_context import TraceContext
from serve_app.observing.tracing_sdk import SpanMaker
from serve_app.observing.tracing_spans import Span, Traced
from serve_app.observing.tracing_writer import Opened, SpanWriter, TracingUnavailable, open_otlp
from tests.otlp import Receiver, grpc_receiver, http_receiver
from tests.unit.serve_app.fakes import FakeResponse
from tests.unit.serve_app.observing.tracings import PARENT, SPAN, TRACE
from tests.unit.serve_app.observing.watching import Watched
from tests.unit.serve_app.rest.front import ASK, CHAT, ready

CONTEXT = TraceContext(TRACE, "1" * 16, is_sampled=True, parent_id=SPAN, state="vendor=1")
TRACED = Traced(
    CONTEXT,
    (
        Span("POST /x", "1" * 16, SPAN, "server", 1, 9, "unavailable", {"manta.outcome": "unavailable", "manta.attempts": 2}),
        Span("answer", "2" * 16, "1" * 16, "client", 2, 8, None, {}),
    ),
)


def config_of(receiver: Receiver, **more: str) -> TracingConfig:
    return TracingConfig.model_validate({"enabled": True, "endpoint": receiver.url, "service_name": "shop", **more})


def writer_to(config: TracingConfig, env: Mapping[str, str] | None = None) -> SpanWriter:
    return SpanWriter(lambda: open_otlp(config, "router", env or {}), target=config.target, every_s=0.01)


def test_spans_arrive_at_a_receiver_as_they_are() -> None:
    with http_receiver() as receiver:
        writer = writer_to(config_of(receiver))
        writer.put(TRACED)
        root, answer = sorted(receiver.wait(2), key=lambda span: span.span_id)
        writer.close(30)
    assert receiver.paths == ["/v1/traces"]
    assert (root.name, root.trace_id, root.parent_id, root.is_error) == ("POST /x", TRACE, SPAN, True)
    assert root.attributes == {"manta.outcome": "unavailable", "manta.attempts": 2, "error.type": "unavailable"}
    assert (answer.trace_id, answer.parent_id, answer.is_error) == (TRACE, root.span_id, False)
    assert (root.resource["service.name"], root.component) == ("shop", "router")
    assert len(root.resource["service.instance.id"]) == 36


def test_spans_arrive_by_grpc() -> None:
    with grpc_receiver() as receiver:
        config = config_of(receiver, protocol="grpc", headers_env="KEYS")
        writer = writer_to(config, {"KEYS": "X-Key=s3cret"})
        writer.put(TRACED)
        assert {span.name for span in receiver.wait(2)} == {"POST /x", "answer"}
        writer.close(30)
    assert receiver.headers[0]["x-key"] == "s3cret"


def test_headers_come_from_the_environment() -> None:
    with http_receiver() as receiver:
        writer = writer_to(config_of(receiver, headers_env="KEYS"), {"KEYS": "X-Key=s3cret%20one, other=a=b"})
        writer.put(TRACED)
        receiver.wait(2)
        writer.close(30)
    sent = {name.lower(): value for name, value in receiver.headers[0].items()}
    assert (sent["x-key"], sent["other"]) == ("s3cret one", "a=b")


async def test_a_request_is_sent_to_the_receiver_by_its_router() -> None:
    with http_receiver() as receiver:
        watched = Watched(ready(FakeResponse(), tracing=config_of(receiver)))
        tracing = Tracing(lambda: watched.inference.view.document.tracing, Delivery("router"))
        watched.inference.recorder._observers = (tracing, watched.kept)
        await watched.request("POST", CHAT, json=ASK, headers={"traceparent": PARENT})
        await tracing.close()
    assert {span.name for span in receiver.spans} >= {f"POST {CHAT}", "authenticate", "lease", "pick", "answer"}
    assert {span.trace_id for span in receiver.spans} == {TRACE}


def test_what_waits_is_sent_at_the_close() -> None:
    with http_receiver() as receiver:
        config = config_of(receiver)
        writer = SpanWriter(lambda: open_otlp(config, "router", {}), target=config.target, every_s=3600)
        writer.put(TRACED)
        writer.close(30)
        assert len(receiver.spans) == 2


def test_a_receiver_that_refuses_is_told_of_once_and_again_when_it_works(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(status=400)
    with http_receiver(receiver), caplog.at_level(logging.WARNING):
        writer = writer_to(config_of(receiver))
        for count in (1, 2):
            writer.put(TRACED)
            receiver.wait_asked(count)
        receiver.status = 200
        writer.put(TRACED)
        receiver.wait(2)
        writer.close(30)
    failed, works = [entry.getMessage() for entry in caplog.records if entry.name == "ray.serve"]
    assert failed.startswith(f"spans cannot be sent to {receiver.url}/v1/traces: ")
    assert "400" in failed
    assert works == f"spans are sent to {receiver.url}/v1/traces again; 4 were lost"


class Stuck:
    """An exporter whose receiver never answers."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def export(self, spans: object) -> object:
        self.has_begun.set()
        self.may_end.wait(30)
        raise OSError("gone")

    def shutdown(self) -> None:
        self.may_end.set()


def test_a_receiver_that_never_answers_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_writer, "MOST_WAITING", 3)
    stuck, config = Stuck(), TracingConfig(enabled=True, endpoint="http://127.0.0.1:9")
    writer = SpanWriter(lambda: Opened(open_otlp(config, "router", {}).maker, stuck), target="x", every_s=0.001)  # type: ignore[arg-type]
    writer.put(TRACED)
    assert stuck.has_begun.wait(30)
    for _ in range(10):
        writer.put(TRACED)
    assert (len(writer._waiting), writer._lost) == (3, 14)
    writer.close(0.01)
    assert writer._thread.is_alive()
    stuck.may_end.set()
    writer.close(30)
    assert (writer._thread.is_alive(), len(writer._waiting), writer._lost) == (False, 0, 22)


@pytest.mark.parametrize(
    ("env", "message"),
    [({}, "names KEYS, which must hold"), ({"KEYS": "s3cret"}, "names KEYS, which must hold")],
    ids=["not-set", "not-pairs"],
)
def test_headers_that_cannot_be_read_are_named_but_not_shown(env: dict[str, str], message: str) -> None:
    config = TracingConfig(enabled=True, endpoint="http://h", headers_env="KEYS")
    with pytest.raises(TracingUnavailable, match=message) as raised:
        open_otlp(config, "router", env)
    assert "s3cret" not in str(raised.value)


def test_a_missing_package_is_told_with_what_to_install(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    config = TracingConfig(enabled=True, endpoint="http://h")
    writer = open_writer(config, "router")
    assert isinstance(writer, SpanWriter)
    writer.put(TRACED)
    writer.close(30)
    [entry] = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert "pip install 'manta-serve[tracing]'" in entry.getMessage()
    writer.put(TRACED)
    assert not writer._waiting


def test_the_processs_own_provider_is_left_alone() -> None:
    before = process_wide.get_tracer_provider()
    config = TracingConfig(enabled=True, endpoint="http://127.0.0.1:9")
    open_otlp(config, "router", {}).maker.make(TRACED)
    assert process_wide.get_tracer_provider() is before


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_local_run_is_refused_that_could_send_no_traces(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    tracing = TracingConfig.model_validate({"enabled": True, "endpoint": "http://h", "protocol": protocol})
    require_tracing(PlatformConfig(tracing=tracing))

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    with pytest.raises(
        CommandError, match=r"`tracing` is on, but opentelemetry\.exporter\..* pip install 'manta-serve\[tracing\]'"
    ):
        require_tracing(PlatformConfig(tracing=tracing))
    require_tracing(PlatformConfig())


def test_a_part_of_a_stage_that_has_not_ended_is_no_trace_of_its_own() -> None:
    open_stage = Span("pick", "3" * 16, "4" * 16, "internal", 1, 2, None, {})
    [made] = SpanMaker({}).make(Traced(CONTEXT, (open_stage,)))
    assert made.parent is not None
    assert (f"{made.parent.span_id:016x}", made.context.trace_state.get("vendor")) == ("4" * 16, "1")
