"""Commits to a LanceDB table: tried again where another writer was faster, and refused in plain words."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from serve_app.errors import Unavailable

if TYPE_CHECKING:
    from lancedb.table import AsyncTable

logger = logging.getLogger("ray.serve")

Result = TypeVar("Result")

# Each try loses to a commit that another writer made, so somebody gets on at every one of them.
TRIES = 20
_CONFLICT = re.compile(r"commit conflict|incompatible with concurrent|concurrent writers|write contention", re.IGNORECASE)
_UNOPENED = "the vector store cannot be opened"
# Of object_store, after its own tries; a store that answers 403 or 404 is set up wrongly, and not away.
_NO_ANSWER = re.compile(r"RetryError|after \d+ retries")
_ANSWERS = re.compile(r"Status \{ status: 4|status code: 4")
_OS_ERROR = re.compile(r"os error (\d+)")
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


async def committed(table: AsyncTable, write: Callable[[], Awaitable[Result]]) -> Result:
    """Return what a write to the table returns; it is begun again on the newest version while others come first.

    Raises:
        Unavailable: the disk is full or refuses, or others write all the time. Nothing of the write is to be seen.
    """
    for _ in range(TRIES - 1):
        try:
            return await _in_plain_words(_written(table.name), write)
        except RuntimeError as err:
            if not _CONFLICT.search(str(err)):
                raise
        await table.checkout_latest()  # type: ignore[no-untyped-call]
    try:
        return await _in_plain_words(_written(table.name), write)
    except RuntimeError as err:
        if not _CONFLICT.search(str(err)):
            raise
        raise Unavailable(f"collection {table.name!r} is written to by too many at once; run fewer, and try again") from err


async def created(collection: str, create: Callable[[], Awaitable[Result]]) -> Result:
    """Return what making a table returns. Raises Unavailable when the disk is full or refuses."""
    return await _in_plain_words(_written(collection), create)


async def connected(connect: Callable[[], Awaitable[Result]]) -> Result:
    """Return what opening a store returns, which makes its folder.

    Raises:
        Unavailable: the disk is full or refuses, or the object store does not answer.
    """
    return await _reached(_UNOPENED, lambda: _in_plain_words(_UNOPENED, connect))


async def reached(collection: str, write: Callable[[], Awaitable[Result]]) -> Result:
    """Return what a write returns. Raises Unavailable when the object store does not answer."""
    return await _reached(_written(collection), write)


async def _reached(problem: str, call: Callable[[], Awaitable[Result]]) -> Result:
    try:
        return await call()
    except (RuntimeError, OSError, ValueError) as err:
        if not _NO_ANSWER.search(str(err)) or _ANSWERS.search(str(err)):
            raise
        logger.warning("%s: %s", problem, err)  # it names hosts, which are not for clients
        raise Unavailable(f"{problem}: the object store of vector_store.uri does not answer; the log says more") from err


def _written(collection: str) -> str:
    return f"collection {collection!r} cannot be written"


async def _in_plain_words(problem: str, write: Callable[[], Awaitable[Result]]) -> Result:
    try:
        return await write()
    except (RuntimeError, OSError, ValueError) as err:
        if (number := _os_error(err)) is None:
            raise
        raise Unavailable(f"{problem}: {_advice(number)}") from err


def _os_error(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found.group(1)) if found else None


def _advice(number: int) -> str:
    if number in _NO_SPACE:
        return (
            f"the disk is full ({os.strerror(number)}); free space where vector_store.uri is, and run it again. "
            "What was stored before stays, and is not stored twice"
        )
    return f"{os.strerror(number)}; vector_store.uri says where it is kept"
