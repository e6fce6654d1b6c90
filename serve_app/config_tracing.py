"""TracingConfig: which requests leave a trace, and where it goes."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from serve_app.config_fields import Config, Text
from serve_app.config_rules import Problems, refuse

HTTP, GRPC = "http/protobuf", "grpc"
EXAMPLE = "http://otel-collector:4318"
TRACES_PATH = "/v1/traces"  # OTLP's own, where a URL of http/protobuf has none
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
EnvName = Annotated[str, StringConstraints(pattern=ENV_NAME, max_length=100)]


class TracingConfig(Config):
    """OpenTelemetry traces. Any edit is applied in place: it travels with the routing document, and no replica restarts."""

    enabled: bool = Field(False, description="Trace requests. Off, nothing is computed and nothing is sent.")
    sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of requests that are traced, 0 to 1; a client that sends `traceparent` has decided for its own.",
    )
    endpoint: Text | None = Field(
        None,
        description="URL of an OTLP receiver, such as `http://otel-collector:4318` (http/protobuf) or "
        "`http://otel-collector:4317` (grpc); `https://` for TLS. Without a path, http/protobuf adds `/v1/traces`.",
    )
    protocol: Literal["http/protobuf", "grpc"] = Field("http/protobuf", description="How spans are sent.")
    headers_env: EnvName | None = Field(
        None,
        description="Environment variable of every Ray node that holds headers for the receiver, `name=value,name=value`; "
        "absent: `OTEL_EXPORTER_OTLP_HEADERS`, where it is set.",
    )
    service_name: Text = Field("manta", max_length=100, description="`service.name` of every span.")

    @model_validator(mode="after")
    def _endpoint_is_a_receiver(self) -> Self:
        refuse(self._problems())
        return self

    @property
    def target(self) -> str:
        """The URL that spans are sent to."""
        url = self.endpoint or ""
        bare = url.rstrip("/")
        return bare + TRACES_PATH if self.protocol == HTTP and not urlsplit(bare).path else url

    def _problems(self) -> Problems:
        if self.endpoint is not None:
            fault = _fault(self.endpoint, has_path=self.protocol == HTTP)
        else:
            fault = f"needs the URL of an OTLP receiver, such as {EXAMPLE}, where `enabled` is true" if self.enabled else None
        if fault is not None:
            yield ("endpoint",), fault


def _fault(url: str, *, has_path: bool) -> str | None:
    """Return what is wrong with a receiver's URL; never the URL itself, which may hold a password by mistake."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        is_url = False
    if not is_url or any(char.isspace() for char in url):
        return "must be a URL that begins with http:// or https:// and names a host, and a port from 1 to 65535 if any"
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "must hold no user, password, query or fragment; credentials go into the variable that `headers_env` names"
    if not has_path and parts.path not in ("", "/"):
        return f"must have no path where `protocol` is grpc, got {parts.path!r}"
    return None
