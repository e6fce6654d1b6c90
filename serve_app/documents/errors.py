"""Errors of uploads and vector stores."""

from __future__ import annotations

from serve_app.errors import ErrorKind, PlatformError


class UnknownObject(PlatformError):
    """No such file, vector store or batch, or it belongs to somebody else: the two look alike on purpose."""

    kind = ErrorKind.NOT_FOUND
    code = "not_found"

    def __init__(self, what: str, object_id: str, *, param: str) -> None:
        super().__init__(f"there is no {what} {object_id[:100]!r}", param=param)


class StoreExpired(PlatformError):
    """A vector store that nobody used for as long as its ``expires_after`` says."""

    kind = ErrorKind.CONFLICT
    code = "vector_store_expired"

    def __init__(self, store_id: str) -> None:
        super().__init__(f"vector store {store_id!r} has expired; create another one", param="vector_store_id")


class TooManyFiles(PlatformError):
    """A vector store is full."""

    kind = ErrorKind.BAD_REQUEST
    code = "too_many_files"

    def __init__(self, most: int) -> None:
        super().__init__(f"a vector store holds at most {most} files here; create another one", param="file_ids")
