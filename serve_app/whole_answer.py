"""An answer that is read as a whole: bounded in size and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from serve_app.upstream import AnswerTooLarge, ReplicaUnreachable

WHOLE_S = 600.0  # from an answer's headers to its end; engines send both together, but for speech
MOST_WHOLE_BYTES = 64 * 1024 * 1024


async def read_whole(chunk: Callable[[], Awaitable[bytes]]) -> bytes:
    """Return what ``chunk`` gives until its end.

    Raises:
        ReplicaUnreachable: it takes longer than ``WHOLE_S``, or ``chunk`` raises it.
        AnswerTooLarge: it has more than ``MOST_WHOLE_BYTES``.
    """
    parts, size = [], 0
    try:
        async with asyncio.timeout(WHOLE_S):
            while part := await chunk():
                parts.append(part)
                size += len(part)
                if size > MOST_WHOLE_BYTES:
                    raise AnswerTooLarge(f"the answer has more than {MOST_WHOLE_BYTES} bytes; ask for less at once")
    except TimeoutError as err:
        raise ReplicaUnreachable(f"the answer did not end within {WHOLE_S:.0f} s of its headers") from err
    return b"".join(parts)
