from __future__ import annotations

import httpx
import pytest

from serve_app.inference import Inference
from serve_app.rest.app import RestApp
from tests.unit.serve_app.fakes import document, snapshot
from tests.unit.serve_app.rest.front import CHAT, error_of, ready, request

PAGE = "https://app.example.org"
PREFLIGHT = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}


async def preflight(*origins: str) -> httpx.Response:
    return await request(ready(cors_origins=origins), "OPTIONS", CHAT, headers=PREFLIGHT)


@pytest.mark.parametrize("origin", [PAGE, "*"])
async def test_pages_of_a_configured_origin_may_call(origin: str) -> None:
    response = await preflight(origin)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, origin)
    assert "access-control-allow-credentials" not in response.headers


async def test_pages_of_another_origin_may_not() -> None:
    response = await preflight("https://other.example.org")
    assert (response.status_code, "access-control-allow-origin" in response.headers) == (400, False)


async def test_without_configured_origins_options_is_no_method() -> None:
    response = await preflight()
    assert (error_of(response)[0], response.headers["allow"]) == (405, "POST")


async def test_a_page_may_read_who_answered() -> None:
    response = await request(ready(cors_origins=(PAGE,)), "GET", "/v1/models", headers={"origin": PAGE})
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "x-manta-variant" in response.headers["access-control-expose-headers"]


async def test_the_origins_in_force_may_change() -> None:
    made = ready(cors_origins=("https://other.example.org",))
    transport = httpx.ASGITransport(RestApp(Inference(made)))
    async with httpx.AsyncClient(transport=transport, base_url="http://manta", headers={"origin": PAGE}) as client:
        before = await client.get("/healthz")
        made.update(snapshot(routing=document(cors_origins=(PAGE,)), version=2))
        after = await client.get("/healthz")
    assert [each.headers.get("access-control-allow-origin") for each in (before, after)] == [None, PAGE]
