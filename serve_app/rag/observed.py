"""Observed questions: what became of each is counted for the pipeline's version, as it is for a model's variant."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable

from serve_app.attempts import Attempt
from serve_app.errors import EmbeddingMismatch, EmptyCollection, ErrorKind, NoPassages, PlatformError, UnknownCollection
from serve_app.gateway import Reply
from serve_app.rollout.telemetry import Outcome
from serve_app.streams import ObservedStream

# What the request, its key or its limits are to blame for.
_REQUESTS_FAULT = frozenset(
    {
        ErrorKind.BAD_REQUEST,
        ErrorKind.UNAUTHENTICATED,
        ErrorKind.FORBIDDEN,
        ErrorKind.NOT_FOUND,
        ErrorKind.METHOD_NOT_ALLOWED,
        ErrorKind.TOO_LARGE,
        ErrorKind.RATE_LIMITED,
    }
)


_MISSING = (EmptyCollection, UnknownCollection, EmbeddingMismatch)


async def observed(attempt: Attempt, work: Awaitable[Reply], *, is_own_collection: bool) -> Reply:
    """Return the reply of an attempt; its stream goes on being observed. Raises what ``work`` raises.

    ``is_own_collection``: the version's own is searched, so that the version is to blame when it is missing or does not fit.
    """
    try:
        reply = await work
    except asyncio.CancelledError:
        attempt.end(Outcome.CANCELLED)
        raise
    except PlatformError as err:
        attempt.end(_blame(err, is_own_collection=is_own_collection))
        raise
    except BaseException:
        attempt.end(Outcome.SERVER_ERROR)
        raise
    if isinstance(reply.body, bytes):
        attempt.end(Outcome.OK, reply.body)
        return reply
    return dataclasses.replace(reply, body=ObservedStream(reply.body, attempt))


def _blame(error: PlatformError, *, is_own_collection: bool) -> Outcome:
    if isinstance(error, _MISSING):
        return Outcome.SERVER_ERROR if is_own_collection else Outcome.REJECTED
    is_requests = isinstance(error, NoPassages) or error.kind in _REQUESTS_FAULT
    return Outcome.REJECTED if is_requests else Outcome.SERVER_ERROR
