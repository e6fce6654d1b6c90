"""Cors: what browsers ask before a page of another origin may call, answered by Starlette's middleware."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

EXPOSED = (
    "retry-after",
    "x-request-id",
    "x-manta-model",
    "x-manta-variant",
    "x-manta-pipeline-version",
    "x-manta-adapter-version",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
)


class Cors:
    """Wraps an ASGI app for the origins of the configuration in force, which may change."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._origins: tuple[str, ...] = ()
        self._wrapped: ASGIApp = app

    def app(self, origins: tuple[str, ...]) -> ASGIApp:
        """Return the app for these origins. Keys come in a header, so cookies are not allowed along."""
        if origins != self._origins:
            self._wrapped = CORSMiddleware(
                self._app,
                allow_origins=origins,
                allow_methods=("GET", "POST", "DELETE"),
                allow_headers=("*",),
                expose_headers=EXPOSED,
            )
            self._origins = origins
        return self._wrapped
