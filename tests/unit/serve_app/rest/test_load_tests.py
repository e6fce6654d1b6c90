"""The admin API of load tests over a desk that only remembers."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from serve_app.config import AuthConfig
from serve_app.errors import RolloutConflict
from serve_app.inference import Inference
from serve_app.rest import load_tests
from serve_app.rest.app import RestApp
from tests.unit.serve_app.load_testing import document, result
from tests.unit.serve_app.rest.front import error_of, ready
from tests.unit.serve_app.test_view import ANN, ANN_KEY, BOB, BOB_KEY

PATH = "/admin/load-tests/smoke"


@dataclass
class FakeDesk:
    """Takes everything, unless it has an error."""

    error: Exception | None = None
    taken: list[tuple[dict[str, Any], str]] = field(default_factory=list)

    async def load_tests(self) -> list[dict[str, Any]]:
        return [{"by": "ci"}]

    async def publish_load_test(self, document: dict[str, Any], *, by: str) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.taken.append((document, by))
        return {"by": by}


async def ask(
    method: str = "POST",
    path: str = PATH,
    *,
    desk: FakeDesk | None = None,
    headers: dict[str, str] | None = None,
    body: Any = None,
    **changes: Any,
) -> httpx.Response:
    inference = Inference(ready(**changes))
    app = RestApp(inference, more=load_tests.routes(inference, desk or FakeDesk()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://manta") as client:
        content = None if method == "GET" else json.dumps(document() if body is None else body)
        return await client.request(method, path, headers={"x-request-id": "req-1", **(headers or {})}, content=content)


@pytest.mark.parametrize(("method", "path"), [("GET", "/admin/load-tests"), ("POST", PATH)])
@pytest.mark.parametrize(("key", "status"), [(None, 401), (ANN_KEY, 403), (BOB_KEY, 200)], ids=["none", "user", "admin"])
async def test_where_there_are_keys_only_an_admins_will_do(method: str, path: str, key: str | None, status: int) -> None:
    desk = FakeDesk()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    answer = await ask(method, path, desk=desk, headers=headers, auth=AuthConfig(keys=(ANN, BOB)))
    assert (answer.status_code, bool(desk.taken)) == (status, status == 200 and method == "POST")


async def test_results_are_listed() -> None:
    assert (await ask("GET", "/admin/load-tests")).json() == {"load_tests": [{"by": "ci"}]}


async def test_a_result_is_taken_in_the_name_of_its_key() -> None:
    desk = FakeDesk()
    answer = await ask(desk=desk, headers={"authorization": f"Bearer {BOB_KEY}"}, auth=AuthConfig(keys=(BOB,)))
    assert (answer.json(), desk.taken) == ({"by": "bob"}, [(result().model_dump(mode="json"), "bob")])


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        pytest.param(document(verdict="none"), "verdict", "verdict:", id="verdict"),
        pytest.param(document(gates=[{"name": "e", "state": "bad"}]), "gates.0.state", "gates.0.state:", id="inside"),
        pytest.param(document(ended_s=1.0), None, "ended_s: the run ended at 1.0", id="contradiction"),
        pytest.param(document(scenario="rag"), "scenario", "the body's is 'rag', the address's is 'smoke'", id="other-name"),
        pytest.param({"format": 1, "figures": {}}, "scenario", "scenario:", id="a-whole-result"),
        pytest.param([], None, "must be a JSON object", id="no-object"),
    ],
)
async def test_a_body_that_is_no_result_is_refused_by_field(body: Any, param: str | None, said: str) -> None:
    desk = FakeDesk()
    answer = await ask(desk=desk, body=body)
    assert (answer.status_code, answer.json()["error"]["param"], desk.taken) == (400, param, [])
    assert said in answer.json()["error"]["message"]


async def test_a_body_that_is_too_large_is_refused() -> None:
    gates = [{"name": "g", "state": "passed", "reason": "x" * load_tests.MOST_BYTES}]
    assert (await ask(body=document(gates=gates))).status_code == 413


async def test_a_page_of_another_origin_may_not_publish() -> None:
    desk = FakeDesk()
    answer = await ask(desk=desk, headers={"origin": "https://evil.example"})
    assert (answer.status_code, desk.taken) == (403, [])


async def test_what_is_not_kept_says_why_and_the_log_has_who_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ray.serve")
    answer = await ask(desk=FakeDesk(RolloutConflict("a later run is kept")))
    assert error_of(answer)[0] == 409
    assert "load test smoke: passed, by key anonymous, request req-1: refused: a later run is kept" in caplog.text


async def test_the_api_document_describes_what_is_taken() -> None:
    inference = Inference(ready())
    app = RestApp(inference, more=load_tests.routes(inference, FakeDesk()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://manta") as client:
        found = (await client.get("/openapi.json")).json()
    (media,) = found["paths"]["/admin/load-tests/{scenario}"]["post"]["requestBody"]["content"].values()
    validator = Draft202012Validator({**media["schema"], "components": found["components"]})
    assert (validator.is_valid(document()), validator.is_valid(document(gates=[{"name": "e"}]))) == (True, False)
