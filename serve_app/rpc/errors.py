"""gRPC's table of errors: kind -> status code, and what google.rpc says of an error; read back by the client."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from serve_app.engine_errors import UpstreamRejected
from serve_app.errors import DeadlineExceeded, ErrorKind, PlatformError, RateLimited, Unavailable

CODE: dict[ErrorKind, grpc.StatusCode] = {
    ErrorKind.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorKind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorKind.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    ErrorKind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorKind.METHOD_NOT_ALLOWED: grpc.StatusCode.UNIMPLEMENTED,
    ErrorKind.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,  # as gRPC's own limit on messages
    ErrorKind.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorKind.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorKind.INTERNAL: grpc.StatusCode.INTERNAL,
}
M = TypeVar("M", bound=Message)

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "manta"
STREAM_BROKEN = "stream_broken"
# HAProxy takes 16 KiB of trailers, and a message is in them twice, once with up to three bytes for one.
_MOST_MESSAGE_CHARS = 1000
_KIND = "kind"  # of the platform, in ErrorInfo: several kinds share a status code


def internal_error() -> PlatformError:
    """Return what a client hears of an error that nobody expected."""
    return PlatformError("internal error; quote the request id when you report it")


def status_of(error: PlatformError, request_id: str) -> status_pb2.Status:
    """Return google.rpc's form of an error."""
    status = status_pb2.Status(code=CODE[error.kind].value[0], message=shown(error))
    for detail in _details(error, request_id):
        status.details.add().Pack(detail)
    return status


def shown(error: PlatformError) -> str:
    """Return the message, cut to what fits into an answer's end."""
    return error.message[:_MOST_MESSAGE_CHARS].encode("utf-8", "replace").decode()


def _details(error: PlatformError, request_id: str) -> Iterator[Message]:
    yield error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata={_KIND: error.kind.value})
    yield error_details_pb2.RequestInfo(request_id=request_id)
    if error.param is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.param, description=shown(error))
        yield error_details_pb2.BadRequest(field_violations=[violation])
    if error.retry_after_s is not None:
        wait = Duration()
        wait.FromNanoseconds(round(error.retry_after_s * 1e9))
        yield error_details_pb2.RetryInfo(retry_delay=wait)


def error_of_event(document: Mapping[str, Any]) -> PlatformError:
    """Return the error that an event of a stream reports in place of a piece of the answer."""
    error = document.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and not isinstance(code, bool):  # the engine's own words, with its HTTP status
        return UpstreamRejected(code, json.dumps(document).encode())
    message = error.get("message") if isinstance(error, dict) else None
    if code == DeadlineExceeded.code:
        return DeadlineExceeded(message if isinstance(message, str) else "the time for the request ran out")
    broken = Unavailable(message if isinstance(message, str) else "the stream of the answer broke; send the request again")
    broken.code = code if isinstance(code, str) else STREAM_BROKEN
    return broken


def error_of_call(code: grpc.StatusCode, message: str, trailers: Iterable[tuple[str, str | bytes]]) -> PlatformError:
    """Return the error that a server has answered with, as the class that it was raised as there where that is known."""
    status = _read_status(trailers)
    info = _read(status, error_details_pb2.ErrorInfo())
    violations = _read(status, error_details_pb2.BadRequest()).field_violations
    retry = _read(status, error_details_pb2.RetryInfo())
    kind = _kind(info.metadata.get(_KIND, ""), code, message)
    error = PlatformError.__new__(_CLASSES.get((kind, info.reason), _FALLBACKS.get(kind, PlatformError)))
    # Subclasses have constructors of their own, which make the message.
    PlatformError.__init__(
        error,
        status.message or message,
        param=violations[0].field if violations else None,
        retry_after_s=retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None,
    )
    error.kind = kind
    error.code = info.reason or error.code
    return error


def _read_status(trailers: Iterable[tuple[str, str | bytes]]) -> status_pb2.Status:
    found = next((value for key, value in trailers if key == DETAILS_KEY), b"")
    try:
        return status_pb2.Status.FromString(found)
    except (DecodeError, TypeError):
        return status_pb2.Status()


def _read(status: status_pb2.Status, into: M) -> M:
    for detail in status.details:
        if detail.Unpack(into):
            break
    return into


def _kind(name: str, code: grpc.StatusCode, message: str) -> ErrorKind:
    if name in _KINDS:
        return ErrorKind(name)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC's limit on messages, or Serve's on requests
        return ErrorKind.TOO_LARGE if "larger than max" in message else ErrorKind.RATE_LIMITED
    return next((kind for kind, known in CODE.items() if known is code), ErrorKind.INTERNAL)


def _classes(parent: type[PlatformError]) -> Iterator[type[PlatformError]]:
    for child in parent.__subclasses__():
        yield child
        yield from _classes(child)


# Those that name no code of their own are told apart by it on the server only.
_CLASSES = {(c.kind, c.code): c for c in reversed(list(_classes(PlatformError))) if "code" in vars(c)}
_FALLBACKS: dict[ErrorKind, type[PlatformError]] = {
    ErrorKind.RATE_LIMITED: RateLimited,
    ErrorKind.UNAVAILABLE: Unavailable,
    ErrorKind.DEADLINE: DeadlineExceeded,
}
_KINDS = frozenset(kind.value for kind in ErrorKind)
