"""RpcCall: one call as the methods see it: who calls, what is asked, and what goes out with the answer's end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from serve_app.call import SKIPPED_HEADER
from serve_app.config import ApiKeyConfig
from serve_app.credentials import only
from serve_app.deadline import TIMEOUT_HEADER, Deadline, deadline_from, wished_timeout
from serve_app.errors import BadRequest, BodyTooLarge, Forbidden, Headers, PlatformError
from serve_app.gateway import Call, Reply
from serve_app.inference import Inference
from serve_app.observing.record import NONE
from serve_app.protos.manta.v1 import common_pb2
from serve_app.request_ids import request_id_for
from serve_app.rpc.convert import json_bytes
from serve_app.rpc.errors import CODE, DETAILS_KEY, shown, status_of

M = TypeVar("M", bound=Message)
LOCAL_PEERS = ("ipv4:127.", "ipv6:%5B::1%5D:", "ipv6:[::1]:", "unix:")


class RpcContext(Protocol):
    """What Serve's context and gRPC's own have in common."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return what the client sent along."""
        ...

    def peer(self) -> str:
        """Return the address that the call came from."""
        ...

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status."""
        ...

    def set_details(self, details: str) -> None:
        """Set the status's message."""
        ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> None:
        """Set what goes out with the status."""
        ...


class RpcCall:
    """Serve sends what is set here only if the method returns: an exception would lose the details of an error."""

    def __init__(self, inference: Inference, context: RpcContext, *, endpoint: str = NONE, is_local_only: bool = False) -> None:
        self.inference = inference
        self._context = context
        self._is_local_only = is_local_only
        self._metadata = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
        self._sent = dict(self._metadata)
        self.request_id = request_id_for(self._sent.get("x-request-id"))
        parent, state = self._sent.get("traceparent"), self._sent.get("tracestate")
        self.record = inference.recorder.begin("grpc", request_id=self.request_id, traceparent=parent, tracestate=state)
        self.record.endpoint, self.record.is_counted = endpoint, endpoint != NONE
        self._reply: Reply | None = None
        self._headers: Headers = ()

    def read(self, raw: bytes, into: M) -> tuple[ApiKeyConfig, M]:
        """Return who calls and the message.

        Raises:
            Forbidden: the platform serves this machine only, and the call came from another.
            Unauthenticated: no key that is known here.
            BodyTooLarge, BadRequest: the message is too large, or no message of this kind; or its timeout is no number.
        """
        caller = self.authenticate()
        self.record.deadline = self._deadline()
        limit_bytes = self.inference.view.document.limits.max_body_bytes
        if len(raw) > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        try:
            into.ParseFromString(raw)
        except DecodeError as err:
            raise BadRequest(f"the request is no {into.DESCRIPTOR.full_name}; is the client's .proto another version?") from err
        return caller, into

    def authenticate(self) -> ApiKeyConfig:
        """Return who calls. Raises Forbidden, Unauthenticated as ``read`` does."""
        if self._is_local_only and not self._context.peer().startswith(LOCAL_PEERS):
            raise Forbidden("this platform serves the machine that it runs on only")
        return self.inference.authenticate(self._only("authorization"), self._only("x-api-key"))

    async def ask(self, caller: ApiKeyConfig, path: str, *, body: Mapping[str, Any]) -> Reply:
        """Return the platform's answer to the body of a REST request. Raises PlatformError."""
        call = Call(
            path=path,
            body=body,
            raw=json_bytes(body),
            caller=caller,
            request_id=self.request_id,
            session_id=self._sent.get("x-session-id"),
            answerer=self.record.answerer,
            record=self.record,
        )
        self._reply = await self.inference.answer(call)
        self._headers = self._reply.headers
        return self._reply

    def answered_by(self, model: str, headers: Headers) -> None:
        """Note what answers, if it has no variants, and what goes with the answer's end."""
        self.record.answerer.model = model
        self._headers = headers

    def origin(self) -> common_pb2.Origin:
        """Return where the answer comes from, as far as it is known."""
        by = self._reply or self.record.answerer
        return common_pb2.Origin(
            request_id=self.request_id,
            model=by.model or "",
            variant=by.variant or "",
            pipeline_version=by.pipeline_version or "",
        )

    def finish(self) -> None:
        """Say with the answer's end where it came from."""
        self.record.status = grpc.StatusCode.OK.name
        self._context.set_trailing_metadata(self._trailers())

    def fail(self, error: PlatformError) -> None:
        """End the call with an error."""
        self.record.fail(error)
        self.record.status = CODE[error.kind].name
        self._context.set_code(CODE[error.kind])
        self._context.set_details(shown(error))
        details = status_of(error, self.request_id).SerializeToString()
        self._context.set_trailing_metadata([*self._trailers(), *error.headers, (DETAILS_KEY, details)])

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Have the call's record read when the work in this context has ended, however it does."""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.record.leave()
            raise
        finally:
            self.inference.recorder.end(self.record)

    def _only(self, name: str) -> str | None:
        return only(value for key, value in self._metadata if key == name)

    def _deadline(self) -> Deadline:
        """Return until when the call may take.

        gRPC cancels a call itself when the client's own deadline passes. How much of it is left is known on gRPC's own
        server only: Serve's context lacks ``time_remaining``, and gRPC keeps ``grpc-timeout`` out of the metadata. So
        clients that want the stages to be shortened by it say it in metadata as well.
        """
        remaining: Callable[[], float | None] = getattr(self._context, "time_remaining", _unknown)
        record, limits = self.record, self.inference.view.document.limits
        left_s = remaining()
        known_s = None if left_s is None else record.clock() - record.began_s + left_s
        wished_s = wished_timeout(self._only(TIMEOUT_HEADER))
        return deadline_from(record.began_s, limits.deadline_s, wished_s, known_s, clock=record.clock)

    def _trailers(self) -> list[tuple[str, str | bytes]]:
        origin = self.origin()
        said = [
            ("x-request-id", origin.request_id),
            ("x-manta-model", origin.model),
            ("x-manta-variant", origin.variant),
            ("x-manta-pipeline-version", origin.pipeline_version),
            ("x-manta-adapter-version", (self._reply or self.record.answerer).adapter_version or ""),
            (SKIPPED_HEADER, ", ".join(self._reply.skipped) if self._reply else ""),
        ]
        return [*((key, value) for key, value in said if value), *self._headers]


def _unknown() -> None:
    return None
