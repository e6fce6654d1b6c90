"""What happens to a request before Ray sees it: headers that Ray would obey are not a client's to send.

Ray calls ``middlewares`` in each process that listens for HTTP (``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``) and puts
what it returns around everything of its own. So nothing heavy is imported here.
"""

from __future__ import annotations

import functools

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.request_ids import REQUEST_ID, request_id_for

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024  # names and values together; HAProxy takes no more than 16 KiB, but is not always in front
# A time limit of the client's own choice, work that goes on for a client who has left, and what picks another replica.
_REFUSED = frozenset((b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"serve-multiplexed-model-id"))
_REFUSED_PREFIX = b"x-serve-"
_FIRST_LETTERS = b"xs"
_TOO_LARGE = (
    b'{"error": {"message": "the request has too many headers, or too long ones", "type": "invalid_request_error", '
    b'"param": null, "code": "headers_too_large"}}'
)


class HeaderGate:
    """ASGI middleware. A request without such headers goes on as it came."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        is_clean, size = len(headers) <= MAX_HEADERS, 0
        for name, value in headers:
            size += len(name) + len(value)
            # Few names begin so, and a look at one byte is all that the others cost.
            if name[0] in _FIRST_LETTERS and (care := _care(name)) and not _is_harmless(care, value):
                is_clean = False
        if is_clean and size <= MAX_HEADER_BYTES:
            await self._app(scope, receive, send)
        elif len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
            await _refuse(send)
        else:
            await self._app({**scope, "headers": _cleaned(headers)}, receive, send)


@functools.lru_cache(maxsize=512)
def _care(name: bytes) -> str:
    """Return what to look at in a header: nothing, that it is there, its text, or that it is an id."""
    name = name.replace(b"_", b"-")
    if name in _REFUSED or name.startswith(_REFUSED_PREFIX):
        return "refused"
    return {b"x-session-id": "text", b"x-request-id": "id"}.get(name, "")


def _is_harmless(care: str, value: bytes) -> bool:
    if care == "id":
        return value.isascii() and REQUEST_ID.fullmatch(value.decode()) is not None
    return care != "refused" and value.isascii()


def _cleaned(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers without what Ray would obey; what it could not read becomes something that it can."""
    kept = []
    for name, value in headers:
        care = _care(name)
        if not care or _is_harmless(care, value):
            kept.append((name, value))
        elif care == "id":
            kept.append((name, request_id_for(None).encode()))  # Ray would put the client's own on the answer
        elif care == "text":  # Ray reads it as UTF-8, and fails on anything else
            kept.append((name, value.hex().encode()))
    return kept


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_TOO_LARGE)).encode()),
        (b"x-request-id", request_id_for(None).encode()),
    ]
    await send({"type": "http.response.start", "status": 431, "headers": headers})
    await send({"type": "http.response.body", "body": _TOO_LARGE})


def middlewares() -> list[Middleware]:
    """Return what Ray puts around its HTTP servers."""
    return [Middleware(HeaderGate)]
