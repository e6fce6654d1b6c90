"""/admin/load-tests: results of load tests, which rollouts can require."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from serve_app.config_error import message_of
from serve_app.errors import BadRequest, PlatformError, quoted
from serve_app.inference import Inference
from serve_app.rest.answer import Answer
from serve_app.rest.document_schemas import TEXT, Schema, shape
from serve_app.rest.operation import JSON_TYPE, Operation
from serve_app.rest.request import Request
from serve_app.rest.rollouts import ADMIN, TAG, refuse_other_pages
from serve_app.rest.routing import Route
from serve_app.rollout.load_tests import LoadTestResult

logger = logging.getLogger("ray.serve")

ALL = "/admin/load-tests"
ONE = f"{ALL}/{{scenario}}"
MOST_BYTES = 256 * 2**10

_TIME: Schema = {"type": "number", "description": "Seconds since the epoch."}
_KEPT = shape(["received_s", "by", "result"], received_s=_TIME, by=TEXT, result={"type": "object"})
LIST = Operation(
    "List the last result of each load test",
    TAG,
    f"{ADMIN} The newest comes first.",
    answers={JSON_TYPE: shape(["load_tests"], load_tests={"type": "array", "items": _KEPT})},
    errors=(403, 503),
)
PUBLISH = Operation(
    "Publish the result of a load test",
    TAG,
    f"{ADMIN} `manta loadtest --publish` sends it. It replaces the scenario's last one, and is kept when the answer comes.",
    bodies={JSON_TYPE: LoadTestResult},
    answers={JSON_TYPE: _KEPT},
    errors=(400, 403, 409, 413, 503),
)


class LoadTestDesk(Protocol):
    """Rollouts, as those who run load tests see it."""

    async def load_tests(self) -> list[dict[str, Any]]:
        """Return the last result of each scenario, the newest first."""
        ...

    async def publish_load_test(self, document: dict[str, Any], *, by: str) -> dict[str, Any]:
        """Keep a result, and return it as it is kept. Raises BadRequest, RolloutConflict, Unavailable."""
        ...


def routes(inference: Inference, desk: LoadTestDesk) -> list[Route]:
    """Return the routes."""

    async def listed(request: Request, answer: Answer) -> None:
        inference.view.authorize_admin(request.caller)
        await answer.json({"load_tests": await desk.load_tests()})

    async def publish(request: Request, answer: Answer) -> None:
        inference.view.authorize_admin(request.caller)
        refuse_other_pages(inference, request)
        by = request.caller.name
        result = result_of(await request.json(limit_bytes=MOST_BYTES), request.params["scenario"])
        told = f"load test {result.scenario}: {result.verdict}, by key {by}, request {request.request_id}"
        try:
            kept = await desk.publish_load_test(result.model_dump(mode="json"), by=by)
        except PlatformError as err:
            logger.info("%s: refused: %s", told, err.message)
            raise
        logger.info("%s: kept", told)
        await answer.json(kept)

    return [Route("GET", ALL, listed, operation=LIST), Route("POST", ONE, publish, operation=PUBLISH)]


def result_of(body: Mapping[str, Any], scenario: str) -> LoadTestResult:
    """Return the result in a body. Raises BadRequest naming the first field at fault."""
    try:
        result = LoadTestResult.model_validate(body)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        message = message_of(first)
        raise BadRequest(f"{field}: {message}" if field else message, param=field or None) from err
    if result.scenario != scenario:
        message = f"scenario: the body's is {result.scenario!r}, the address's is {quoted(scenario)}"
        raise BadRequest(message, param="scenario")
    return result
