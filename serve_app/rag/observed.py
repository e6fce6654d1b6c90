"""Observed questions: what became of each is counted for the pipeline's version, as it is for a model's variant."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable

from serve_app.attempts import Attempt
from serve_app.errors import ErrorKind, PlatformError
from serve_app.gateway import Reply
from serve_app.rollout.telemetry import Outcome
from serve_app.streams import ObservedStream

# What the request, its key or its limits are to blame for. A collection that is empty or does not fit is the version's fault.
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


async def observed(attempt: Attempt, work: Awaitable[Reply]) -> Reply:
    """Return the reply of an attempt; its stream goes on being observed. Raises what ``work`` raises."""
    try:
        reply = await work
    except asyncio.CancelledError:
        attempt.end(Outcome.CANCELLED)
        raise
    except PlatformError as err:
        attempt.end(Outcome.REJECTED if err.kind in _REQUESTS_FAULT else Outcome.SERVER_ERROR)
        raise
    except BaseException:
        attempt.end(Outcome.SERVER_ERROR)
        raise
    if isinstance(reply.body, bytes):
        attempt.end(Outcome.OK, reply.body)
        return reply
    return dataclasses.replace(reply, body=ObservedStream(reply.body, attempt))
