"""Request: one HTTP request as the handlers of the REST front see it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs

from serve_app.config import ApiKeyConfig
from serve_app.credentials import only
from serve_app.errors import BadRequest
from serve_app.observing.record import RequestRecord
from serve_app.rest.forms import parse_form
from serve_app.rest.http import Receive, Scope, header, parse_object, read_body
from serve_app.rest.operation import FORM_TYPE, JSON_TYPE

NO_PARAMS: Mapping[str, str] = MappingProxyType({})


class Request:
    """What a client asks. ``caller`` is known before any handler but an open route's runs."""

    def __init__(self, scope: Scope, receive: Receive, *, record: RequestRecord) -> None:
        self._scope = scope
        self.receive = receive
        self.record = record
        self.request_id = record.request_id
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.params: Mapping[str, str] = NO_PARAMS  # the names in the route's template
        self.caller: ApiKeyConfig

    @property
    def raw_query(self) -> str:
        """The query string as it was sent."""
        return str(self._scope["query_string"].decode("latin-1"))

    @property
    def target(self) -> str:
        """Path and query string."""
        return self.path + (f"?{query}" if (query := self.raw_query) else "")

    def query(self) -> dict[str, str]:
        """Return the query's parameters; of one that is repeated the last."""
        return {name: values[-1] for name, values in parse_qs(self.raw_query).items()}

    def header(self, name: str) -> str | None:
        """Return a header's value; the name is in lower case."""
        return header(self._scope, name.encode())

    def credentials(self) -> tuple[str | None, str | None]:
        """Return `authorization` and `x-api-key`. Raises Unauthenticated when one of them came twice and differs."""
        return self._only(b"authorization"), self._only(b"x-api-key")

    def _only(self, name: bytes) -> str | None:
        return only(value.decode("latin-1") for key, value in self._scope["headers"] if key == name)

    async def body(self, *, limit_bytes: int) -> bytes:
        """Return the body. Raises BodyTooLarge; ClientGone when the client leaves meanwhile."""
        return await read_body(self._scope, self.receive, limit_bytes=limit_bytes)

    @property
    def content_type(self) -> str:
        """What the body is, in lower case and without parameters; JSON when nothing is said."""
        return (self.header("content-type") or JSON_TYPE).partition(";")[0].strip().lower()

    def parse(self, raw: bytes) -> dict[str, Any]:
        """Return the JSON object in a body that was read. Raises BadRequest."""
        self.require_json()
        return parse_object(raw)

    def require_json(self) -> None:
        """Raise BadRequest when the body is said to be anything but JSON."""
        if not _is_json(self.content_type):
            raise BadRequest(f"content-type must be {JSON_TYPE} here", param="content-type")

    def parse_relayed(self, raw: bytes) -> dict[str, Any]:
        """Return the JSON object in a body that was read, or what a Router must know of a form. Raises BadRequest."""
        if self.content_type == FORM_TYPE:
            return parse_form(raw, self.header("content-type") or "")
        if not _is_json(self.content_type):
            raise BadRequest(f"content-type must be {JSON_TYPE} or {FORM_TYPE}", param="content-type")
        return parse_object(raw)

    async def json(self, *, limit_bytes: int) -> dict[str, Any]:
        """Return the JSON object in the body. Raises BodyTooLarge, BadRequest."""
        return self.parse(await self.body(limit_bytes=limit_bytes))


def _is_json(content_type: str) -> bool:
    return content_type == JSON_TYPE or (content_type.startswith("application/") and content_type.endswith("+json"))
