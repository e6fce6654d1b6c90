"""The one tree of errors that Manta's own code raises; the fronts translate kinds into status codes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

Headers = tuple[tuple[str, str], ...]
MOST_QUOTED = 100


def quoted(text: str) -> str:
    """Return what a client sent as an error may repeat it: in quotes, and cut."""
    return repr(text[:MOST_QUOTED])


class ErrorKind(StrEnum):
    """What went wrong, in terms every front can answer."""

    BAD_REQUEST = "bad_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    INTERNAL = "internal"


class PlatformError(Exception):
    """An error with a message fit for a client: no path, no address, no stack trace.

    Attributes:
        kind: what the fronts map to a status code.
        code: a stable machine-readable word, e.g. ``model_not_found``.
        param: the request field at fault, or None.
        retry_after_s: seconds after which a retry makes sense, or None.
        headers: what else goes with the answer, such as how much of a limit is left.
    """

    kind: ErrorKind = ErrorKind.INTERNAL
    code: str = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None, headers: Headers = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = headers

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross actor boundaries; subclasses have constructors of their own, so rebuild without calling them.
        return _rebuild, (type(self), self.message, dict(self.__dict__))


def _rebuild(cls: type[PlatformError], message: str, state: dict[str, Any]) -> PlatformError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class BadRequest(PlatformError):
    """The request cannot be understood; ``param`` names the field."""

    kind = ErrorKind.BAD_REQUEST
    code = "invalid_request"


class Unauthenticated(PlatformError):
    """No key, or a key nobody issued."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "invalid_api_key"


class Forbidden(PlatformError):
    """The key is known but may not do this."""

    kind = ErrorKind.FORBIDDEN
    code = "permission_denied"


class UnknownModel(PlatformError):
    """The request names a model, pipeline or embedder that is not served here."""

    kind = ErrorKind.NOT_FOUND
    code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(f"model {quoted(model)} is not served here; GET /v1/models lists what is", param="model")


class UnknownCollection(PlatformError):
    """No such collection or vector store, or none of the caller's."""

    kind = ErrorKind.NOT_FOUND
    code = "collection_not_found"

    def __init__(self, collection: str) -> None:
        super().__init__(f"there is no collection {quoted(collection)}", param="collection")


class UnknownRoute(PlatformError):
    """No such path or method."""

    kind = ErrorKind.NOT_FOUND
    code = "unknown_url"


class MethodNotAllowed(PlatformError):
    """The path exists, but not for this method."""

    kind = ErrorKind.METHOD_NOT_ALLOWED
    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method} is not allowed for {path}; use {', '.join(allowed)}")
        self.allowed = tuple(allowed)


class BodyTooLarge(PlatformError):
    """The body is over ``limits.max_body_bytes``."""

    kind = ErrorKind.TOO_LARGE
    code = "request_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the request body is larger than the limit of {limit_bytes} bytes")


class RateLimited(PlatformError):
    """A limit is reached or every queue is full; try again after ``retry_after_s``."""

    kind = ErrorKind.RATE_LIMITED
    code = "rate_limit_exceeded"
    limit = "queue"  # which one; of a key's limits: requests, tokens, concurrency


class Unavailable(PlatformError):
    """Nothing healthy can take the request now."""

    kind = ErrorKind.UNAVAILABLE
    code = "service_unavailable"


class AdapterUnavailable(PlatformError):
    """No replica could load the adapter; the reason is in the replicas' logs."""

    kind = ErrorKind.UNAVAILABLE
    code = "adapter_unavailable"

    def __init__(self, adapter: str) -> None:
        super().__init__(f"adapter {quoted(adapter)} cannot be loaded; the replicas' logs say why", retry_after_s=30)


class DeadlineExceeded(PlatformError):
    """The request's time budget ran out."""

    kind = ErrorKind.DEADLINE
    code = "deadline_exceeded"


class EmptyCollection(PlatformError):
    """A collection holds nothing to search."""

    kind = ErrorKind.CONFLICT
    code = "collection_empty"

    def __init__(self, collection: str) -> None:
        super().__init__(f"collection {collection!r} is empty; fill it with `manta ingest PATH --collection {collection}`")


class NoPassages(PlatformError):
    """A collection holds nothing that fits a question and its filters."""

    kind = ErrorKind.CONFLICT
    code = "no_passages"

    def __init__(self, collection: str) -> None:
        super().__init__(f"no passage of collection {collection!r} fits the question; filter less, or ask in other words")


class EmbeddingMismatch(PlatformError):
    """A collection was embedded by another model than the one that would search it."""

    kind = ErrorKind.CONFLICT
    code = "embedding_mismatch"

    def __init__(self, collection: str, stored: str, offered: str) -> None:
        super().__init__(
            f"collection {collection!r} was embedded with {stored}, but the embedder gives {offered}; "
            f"point the pipeline at the embedder it was made with, or re-embed into a new collection: "
            f"`manta ingest PATH --collection NEW_NAME`"
        )


class RolloutConflict(PlatformError):
    """A rollout is not in a state for what was asked of it."""

    kind = ErrorKind.CONFLICT
    code = "rollout_conflict"


class UnknownRollout(PlatformError):
    """No model or pipeline of that name."""

    kind = ErrorKind.NOT_FOUND
    code = "rollout_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"no model or pipeline is called {quoted(name)}; GET /admin/rollouts lists them", param="name")


class MissingWeights(BadRequest):
    """A model's source names nothing that can be loaded."""

    code = "missing_weights"


class CommandError(Exception):
    """A `manta` command cannot do its work; the text, meant for a terminal, says why and what to do."""


class OpenToEverybody(CommandError):
    """A platform without keys would listen where others reach it, and nobody said that this is meant."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"no API keys are configured, and {host} is not only this machine: whoever reaches it could use every model; "
            f"make a key with `manta keys create NAME --file keys.yaml` and set `auth: {{keys_file: keys.yaml}}`, "
            f"or listen on 127.0.0.1, or set `auth: {{allow_anonymous: true}}`"
        )
