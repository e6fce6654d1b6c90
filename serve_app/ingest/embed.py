"""Many texts to vectors, without keeping the embedder from anyone else."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence

from serve_app.contracts import Embedder, Vector

REQUEST_TEXTS = 32
# One forward pass that runs and one that waits keep the embedder busy; more would only make questions wait behind them.
REQUESTS_IN_FLIGHT = 2


async def embed_texts(embedder: Embedder, texts: Sequence[str], *, turns: asyncio.Semaphore) -> list[Vector]:
    """Return one vector per text, in order; texts of like length go in one request, so that little of it is padding."""

    async def request(indexes: Sequence[int]) -> list[Vector]:
        async with turns:
            # A book's vectors are many: as Python's numbers they would take eight times the memory.
            return [array("f", vector) for vector in await embedder.embed([texts[i] for i in indexes])]

    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    requests = [order[i : i + REQUEST_TEXTS] for i in range(0, len(order), REQUEST_TEXTS)]
    answers = await asyncio.gather(*map(request, requests))
    vectors = [vector for answer in answers for vector in answer]
    return [vector for _, vector in sorted(zip(order, vectors, strict=True), key=lambda pair: pair[0])]
