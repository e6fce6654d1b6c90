"""GET /openapi.json and GET /docs: open without a key, since nothing in them depends on what is deployed."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from importlib.resources import files

from serve_app.rest.answer import Answer
from serve_app.rest.openapi import openapi_document
from serve_app.rest.operation import JSON_TYPE, NOTHING, Operation
from serve_app.rest.request import Request
from serve_app.rest.routing import Route

HTML_TYPE = "text/html; charset=utf-8"
_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)
OPENAPI = Operation("This document", "operations", answers={JSON_TYPE: {"type": "object"}})
DOCS = Operation("A page that shows this document", "operations", answers={"text/html": NOTHING})


class DocsRoutes:
    """Handlers over the routes that they describe, and themselves."""

    def __init__(self, described: Sequence[Route], *, has_keys: Callable[[], bool]) -> None:
        self._described = tuple(described)
        self._has_keys = has_keys
        self._documents: dict[bool, bytes] = {}

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("GET", "/openapi.json", self._openapi, is_open=True, operation=OPENAPI),
            Route("GET", "/docs", self._docs, is_open=True, operation=DOCS),
        ]

    async def _openapi(self, _: Request, answer: Answer) -> None:
        has_keys = self._has_keys()
        if has_keys not in self._documents:
            document = openapi_document([*self._described, *self.routes()], has_keys=has_keys)
            self._documents[has_keys] = json.dumps(document).encode()
        await answer.bytes(self._documents[has_keys], content_type=JSON_TYPE)

    async def _docs(self, _: Request, answer: Answer) -> None:
        page = docs_page()
        headers = (("content-security-policy", content_policy(page)), ("x-content-type-options", "nosniff"))
        await answer.bytes(page, content_type=HTML_TYPE, headers=(*headers, ("referrer-policy", "no-referrer")))


@functools.cache
def docs_page() -> bytes:
    """Return the page."""
    return files("serve_app.rest").joinpath("docs.html").read_bytes()


@functools.cache
def content_policy(page: bytes) -> str:
    """Return the policy under which the page's own script and style run, and nothing else."""
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for kind, text in _INLINE.findall(page):
        hashes[kind].append(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'")
    allowed = "; ".join(f"{kind.decode()}-src {' '.join(found)}" for kind, found in hashes.items())
    return f"default-src 'none'; connect-src 'self'; {allowed}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
