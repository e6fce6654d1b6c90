from __future__ import annotations

import re

import pytest

from serve_app.config import ApiKeyConfig, AuthConfig
from serve_app.rest.docs import content_policy, docs_page
from tests.unit.serve_app.rest.front import ready, request

KEYS = AuthConfig(keys=(ApiKeyConfig(name="ann", hash=f"sha256:{'0' * 32}:{'1' * 64}"),))


@pytest.mark.parametrize(("path", "kind"), [("/docs", "text/html; charset=utf-8"), ("/openapi.json", "application/json")])
async def test_both_are_open_without_a_key(path: str, kind: str) -> None:
    response = await request(ready(auth=KEYS), "GET", path)
    assert (response.status_code, response.headers["content-type"]) == (200, kind)


async def test_the_page_may_load_nothing_but_the_document() -> None:
    headers = (await request(ready(), "GET", "/docs")).headers
    assert re.fullmatch(
        r"default-src 'none'; connect-src 'self'; script-src 'sha256-[^']{44}'; style-src 'sha256-[^']{44}'; "
        r"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        headers["content-security-policy"],
    )
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_names_no_other_host_and_has_no_inline_handlers() -> None:
    page = docs_page().decode()
    assert not re.search(r"https?://|\bon\w+=|style=|javascript:|innerHTML", page)


def test_the_policy_follows_the_page() -> None:
    assert content_policy(docs_page()) != content_policy(docs_page().replace(b"Loading", b"Wait").replace(b"--ink", b"--tint"))
