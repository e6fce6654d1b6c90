from __future__ import annotations

import httpx
import pytest

from serve_app.config import AuthConfig
from serve_app.inference import Inference
from serve_app.rest.app import RestApp
from tests.unit.serve_app.rest.front import ASK, CHAT, error_of, ready, request
from tests.unit.serve_app.test_view import ANN, ANN_KEY, BOB, BOB_KEY


@pytest.mark.parametrize(
    ("method", "path", "key", "answer"),
    [
        ("POST", CHAT, None, (401, "invalid_api_key", None)),
        ("POST", CHAT, "wrong", (401, "invalid_api_key", None)),
        ("GET", "/v1/models", None, (401, "invalid_api_key", None)),
        ("GET", "/v1/models/chat", None, (401, "invalid_api_key", None)),
        ("GET", "/v1/models/docs", ANN_KEY, (403, "permission_denied", "model")),
        ("GET", "/v1/models/nope", ANN_KEY, (404, "model_not_found", "model")),
        ("GET", "/admin/status", None, (401, "invalid_api_key", None)),
        ("GET", "/admin/status", ANN_KEY, (403, "permission_denied", None)),
        ("GET", "/readyz?model=chat", None, (401, "invalid_api_key", None)),
        ("GET", "/readyz?model=docs", ANN_KEY, (403, "permission_denied", "model")),
    ],
)
async def test_keys_are_asked_for(method: str, path: str, key: str | None, answer: tuple[int, str, str | None]) -> None:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    made = ready(auth=AuthConfig(keys=(ANN, BOB)))
    response = await request(made, method, path, headers=headers, json=ASK if method == "POST" else None)
    assert error_of(response) == answer
    assert response.headers.get("www-authenticate") == ("Bearer" if answer[0] == 401 else None)


async def test_a_key_bound_to_models_may_not_use_others() -> None:
    made = ready(auth=AuthConfig(keys=(ANN,)))
    for name, status in {"chat": 200, "docs": 403}.items():
        headers = {"authorization": f"Bearer {ANN_KEY}"}
        assert (await request(made, "POST", CHAT, json={**ASK, "model": name}, headers=headers)).status_code == status


async def test_a_key_is_asked_for_before_the_body_is_read() -> None:
    made = ready(auth=AuthConfig(keys=(ANN,)))
    assert (await request(made, "POST", CHAT, content=b"{")).status_code == 401


async def test_the_status_is_for_admins() -> None:
    headers = {"authorization": f"Bearer {BOB_KEY}"}
    made = ready(auth=AuthConfig(keys=(ANN, BOB)))
    assert (await request(made, "GET", "/admin/status", headers=headers)).json() == {"all": "well"}
    assert (await request(ready(), "GET", "/admin/status")).json() == {"all": "well"}


async def test_models_pipelines_and_embedders_are_listed_as_far_as_the_key_reaches() -> None:
    listed = (await request(ready(), "GET", "/v1/models")).json()
    assert [(c["id"], c["kind"]) for c in listed["data"]] == [("chat", "model"), ("docs", "pipeline"), ("minilm", "embedder")]
    made = ready(auth=AuthConfig(keys=(ANN,)))
    listed = (await request(made, "GET", "/v1/models", headers={"authorization": f"Bearer {ANN_KEY}"})).json()
    assert [c["id"] for c in listed["data"]] == ["chat"]


async def test_a_card_says_what_a_model_is() -> None:
    card = (await request(ready(), "GET", "/v1/models/chat")).json()
    assert (card["owned_by"], card["created"], card["engine"]) == ("manta", 0, "simulated")
    card = (await request(ready(), "GET", "/v1/models/minilm")).json()
    assert card["embedding"] == {"model": "org/minilm", "dimension": 2, "normalized": True}


async def test_without_a_report_there_is_no_status() -> None:
    transport = httpx.ASGITransport(RestApp(Inference(ready())))
    async with httpx.AsyncClient(transport=transport, base_url="http://manta") as client:
        assert (await client.get("/admin/status")).status_code == 404
