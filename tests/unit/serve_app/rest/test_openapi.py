from __future__ import annotations

from typing import Any, cast

import httpx
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from serve_app.config import ApiKeyConfig, AuthConfig
from serve_app.documents.contract import Documents
from serve_app.inference import Inference
from serve_app.rest import files, load_tests, rollouts, scaling, vector_stores
from serve_app.rest.answer import Answer
from serve_app.rest.app import RestApp
from serve_app.rest.openapi import openapi_document
from serve_app.rest.operation import Operation
from serve_app.rest.request import Request
from serve_app.rest.routing import Route
from tests.unit.serve_app.fakes import model
from tests.unit.serve_app.rest.front import ready, request

KEYS = AuthConfig(keys=(ApiKeyConfig(name="ann", hash=f"sha256:{'0' * 32}:{'1' * 64}"),))


async def described(app: RestApp) -> dict[str, Any]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://manta") as client:
        found: dict[str, Any] = (await client.get("/openapi.json")).json()["paths"]
    return found


async def document(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await request(ready(**changes), "GET", "/openapi.json")).json()
    return found


async def test_every_route_is_in_the_document_and_nothing_else() -> None:
    inference, documents = Inference(ready()), cast(Documents, None)  # no route is called
    more = [*files.routes(inference, documents), *vector_stores.routes(inference, documents)]
    more += [*rollouts.routes(inference, cast(Any, None)), *scaling.routes(inference, cast(Any, None))]
    more += load_tests.routes(inference, cast(Any, None))
    app = RestApp(inference, more=more)
    routes = {(route.method.lower(), route.template) for route in app.table.routes}
    paths = await described(app)
    assert {(method, path) for path, methods in paths.items() for method in methods} == routes
    assert {("post", "/v1/vector_stores"), ("post", "/admin/rollouts/{name}/{verb}"), ("get", "/admin/scaling")} <= routes


async def test_ids_of_operations_are_unique_and_schemas_valid() -> None:
    paths = (await document())["paths"]
    operations = [operation for methods in paths.values() for operation in methods.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for operation in operations:
        for media in operation.get("requestBody", {}).get("content", {}).values():
            Draft202012Validator.check_schema(media["schema"])


async def test_keys_are_described_where_they_are_asked_for() -> None:
    found = await document(auth=KEYS)
    assert set(found["components"]["securitySchemes"]) == {"bearer", "x-api-key"}
    assert found["paths"]["/v1/models"]["get"]["security"] == [{"bearer": []}, {"x-api-key": []}]
    assert "401" in found["paths"]["/v1/models"]["get"]["responses"]
    assert "security" not in found["paths"]["/healthz"]["get"]


async def test_without_keys_none_are_described() -> None:
    found = await document()
    assert "securitySchemes" not in found["components"]
    assert not any("security" in operation for methods in found["paths"].values() for operation in methods.values())


async def test_the_document_tells_nothing_of_what_is_deployed() -> None:
    assert await document() == await document(models=(model(("other", 100), name="secret"),), pipelines=(), embedders=())


async def test_errors_of_anthropics_endpoints_have_anthropics_form() -> None:
    paths = (await document())["paths"]
    forms = {
        path: paths[path]["post"]["responses"]["400"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
        for path in ("/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions")
    }
    assert list(forms.values()) == ["AnthropicError", "AnthropicError", "Error"]


async def test_a_streamed_endpoint_says_so() -> None:
    paths = (await document())["paths"]
    kinds = {path: set(paths[path]["post"]["responses"]["200"]["content"]) for path in ("/v1/completions", "/v1/score")}
    assert kinds == {"/v1/completions": {"application/json", "text/event-stream"}, "/v1/score": {"application/json"}}


class Part(BaseModel):
    number: int


class Body(BaseModel):
    """A body with a part."""

    part: Part


async def nothing(request: Request, answer: Answer) -> None:
    raise AssertionError


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_models_schema_goes_into_the_components(method: str) -> None:
    operation = Operation("Do", "tests", bodies={"application/json": Body}, answers={"application/json": Part}, status=201)
    found = openapi_document([Route(method, "/v1/things/{thing}", nothing, operation=operation)], has_keys=False)
    described = found["paths"]["/v1/things/{thing}"][method.lower()]
    reference = {"$ref": "#/components/schemas/Body"}
    assert described["requestBody"]["content"]["application/json"]["schema"] == reference
    thing, timeout = described["parameters"]
    assert thing == {"name": "thing", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    assert (timeout["name"], timeout["in"]) == ("x-request-timeout-s", "header")
    assert {"Body", "Part"} <= set(found["components"]["schemas"])
    assert "201" in described["responses"]


def test_a_route_without_an_operation_is_left_out() -> None:
    assert openapi_document([Route("GET", "/x", nothing)], has_keys=False)["paths"] == {}
