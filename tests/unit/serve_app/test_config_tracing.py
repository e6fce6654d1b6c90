from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.config import PlatformConfig
from serve_app.config_tracing import TracingConfig
from serve_app.loading import parse_platform
from serve_app.rollout.document import RoutingDocument, routing_document


def test_it_is_off_unless_it_is_asked_for() -> None:
    assert PlatformConfig().tracing == TracingConfig(enabled=False, sample_ratio=1.0, protocol="http/protobuf")


@pytest.mark.parametrize(
    ("endpoint", "protocol", "target"),
    [
        ("http://collector:4318", "http/protobuf", "http://collector:4318/v1/traces"),
        ("https://collector/", "http/protobuf", "https://collector/v1/traces"),
        ("https://vendor.example/otlp/v1/traces", "http/protobuf", "https://vendor.example/otlp/v1/traces"),
        ("http://collector:4317", "grpc", "http://collector:4317"),
    ],
    ids=["bare", "slash", "own-path", "grpc"],
)
def test_a_bare_url_gets_the_path_of_otlp(endpoint: str, protocol: Any, target: str) -> None:
    assert TracingConfig(enabled=True, endpoint=endpoint, protocol=protocol).target == target


@pytest.mark.parametrize(
    ("document", "line", "message"),
    [
        ("tracing: {enabled: true}", 1, "needs the URL of an OTLP receiver"),
        ("tracing:\n  endpoint: collector:4317", 2, "must be a URL that begins with http:// or https://"),
        ("tracing:\n  endpoint: http://h:99999", 2, "a port from 1 to 65535"),
        ("tracing:\n  endpoint: 'http://[::1'", 2, "must be a URL"),
        ("tracing:\n  endpoint: https://ann:s3cret@h", 2, "must hold no user, password, query or fragment"),
        ("tracing:\n  protocol: grpc\n  endpoint: http://h:4317/v1/traces", 3, "must have no path where `protocol` is grpc"),
        ("tracing:\n  headers_env: api-key=s3cret", 2, "expected the name of an environment variable, such as OTLP_HEADERS"),
        ("tracing:\n  sample_ratio: 1.5", 2, "sample_ratio"),
        ("tracing:\n  sample_ratio: true", 2, "expected a number, got `true`"),
        ("tracing:\n  headers: {authorization: x}", 2, "headers"),
    ],
    ids=["no-endpoint", "no-url", "port", "half-address", "password", "grpc-path", "no-variable", "ratio", "bool", "headers"],
)
def test_a_fault_is_named_with_its_field(document: str, line: int, message: str) -> None:
    with pytest.raises(ValueError, match="tracing") as raised:
        parse_platform(document, name="platform.yaml")
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"platform.yaml:{line}:")
    assert "s3cret" not in str(raised.value)


def test_routers_are_told_in_place() -> None:
    on = TracingConfig(enabled=True, endpoint="http://h:4318", sample_ratio=0.1)
    assert routing_document(PlatformConfig(tracing=on)).tracing == on
    assert RoutingDocument().tracing == TracingConfig()


def test_an_endpoint_may_stay_while_it_is_off() -> None:
    assert not TracingConfig(endpoint="http://h:4318").enabled
    with pytest.raises(ValidationError, match="needs the URL"):
        TracingConfig(enabled=True)
