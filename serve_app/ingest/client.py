"""The running platform's embedder, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from serve_app.contracts import EmbeddingFingerprint
from serve_app.errors import BadRequest, DeadlineExceeded, Forbidden, PlatformError, Unauthenticated, Unavailable

BUSY = frozenset({429, 503})
TRIES = 5
TIMEOUT = httpx.Timeout(300.0, connect=5.0)  # seconds; a busy embedder queues
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
CLIENT_ERRORS: dict[int, type[PlatformError]] = {400: BadRequest, 401: Unauthenticated, 403: Forbidden, 413: BadRequest}


class EmbeddingClient:
    """The Embedder protocol on ``{base}/v1``. Use it as an async context manager.

    Args:
        base_url: such as http://127.0.0.1:8000, with or without /v1.
        embedder: name of the embedder, sent as ``model``.
        api_key: sent as bearer token when given.
        transport: replaces the network in tests.
        sleep: replaces waiting in tests.
    """

    def __init__(
        self,
        base_url: str,
        embedder: str,
        *,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._base_url = base_url.rstrip("/").removesuffix("/v1")
        self._embedder = embedder
        self._sleep = sleep
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(base_url=self._base_url, headers=headers, timeout=TIMEOUT, transport=transport)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def describe(self) -> EmbeddingFingerprint:
        """Return what the embedder's vectors are.

        Raises:
            BadRequest: the platform has no embedder of that name.
            Unavailable: the platform is not running, or stays busy.
        """
        try:
            answer = await self._call("GET", f"/v1/models/{self._embedder}")
        except NotServed as err:
            raise self._no_embedder() from err
        embedding = answer.get("embedding")
        if not isinstance(embedding, dict):
            raise self._no_embedder()
        return EmbeddingFingerprint(
            model=embedding["model"], dimension=embedding["dimension"], normalized=embedding["normalized"]
        )

    async def embed(self, texts: Sequence[str], *, budget_s: float | None = None) -> list[list[float]]:
        """Return one vector per text, in order.

        Raises:
            BadRequest: the platform refuses a text.
            Unavailable: the platform is not running, stays busy, or answers something else.
            DeadlineExceeded: there was no answer within ``budget_s`` seconds.
        """
        try:
            async with asyncio.timeout(budget_s) as limit:
                return await self._embedded(texts)
        except TimeoutError as err:
            if not limit.expired():
                raise
            raise DeadlineExceeded(f"{self._base_url} did not answer within {budget_s:g} s") from err

    async def _embedded(self, texts: Sequence[str]) -> list[list[float]]:
        # A passage has its title and headings above it, and may so be longer than the embedder reads.
        body = {"model": self._embedder, "input": list(texts), "encoding_format": "float", "truncate_prompt_tokens": -1}
        data = (await self._call("POST", "/v1/embeddings", body)).get("data")
        if not isinstance(data, list) or len(data) != len(texts):
            raise Unavailable(f"{self._base_url} did not answer with one vector per text")
        return [item["embedding"] for item in sorted(data, key=lambda item: item["index"])]

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        pause_s = FIRST_PAUSE_S
        for _ in range(TRIES - 1):
            response = await self._send(method, path, body)
            if response.status_code not in BUSY:
                return self._answer(response)
            await self._sleep(_retry_after_s(response) or pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return self._answer(await self._send(method, path, body))

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        try:
            return await self._http.request(method, path, json=body)
        except httpx.ConnectError as err:
            raise Unavailable(
                f"the platform is not running at {self._base_url}; start it with `manta run`, or give its --url"
            ) from err
        except httpx.TimeoutException as err:
            raise DeadlineExceeded(f"{self._base_url} did not answer in time; is the embedder overloaded?") from err
        except (httpx.HTTPError, httpx.InvalidURL) as err:
            raise Unavailable(f"the connection to {self._base_url} failed: {type(err).__name__}") from err

    def _answer(self, response: httpx.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.is_success and isinstance(answer, dict):
            return answer
        said = f"{self._base_url} answered {response.status_code}: {_message(answer)}"
        if response.status_code == 404:
            raise NotServed(said)
        raise CLIENT_ERRORS.get(response.status_code, Unavailable)(said)

    def _no_embedder(self) -> BadRequest:
        return BadRequest(
            f"{self._base_url} serves no embedder {self._embedder!r}; GET /v1/models lists what it serves",
            param="embedder",
        )


class NotServed(Unavailable):
    """The platform answered 404."""


def _message(answer: object) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else "no error message; is this a Manta platform?"


def _retry_after_s(response: httpx.Response) -> float | None:
    """Return the pause that the platform asks for; None for a date or nothing."""
    try:
        return min(max(float(response.headers["retry-after"]), 0.0), LONGEST_PAUSE_S)
    except (KeyError, ValueError):
        return None
