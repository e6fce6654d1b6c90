"""/admin/scaling: what every application's number of replicas goes by, and what was decided on it."""

from __future__ import annotations

from typing import Any, Protocol

from serve_app.inference import Inference
from serve_app.rest.answer import Answer
from serve_app.rest.document_schemas import COUNT, TEXT, Schema, shape
from serve_app.rest.operation import JSON_TYPE, Operation
from serve_app.rest.request import Request
from serve_app.rest.rollouts import ADMIN, TAG
from serve_app.rest.routing import Route

PATH = "/admin/scaling"

_BUDGET = shape(["max_accelerators", "in_use"], max_accelerators={"type": ["integer", "null"]}, in_use=COUNT)
_REQUIRED = ("name", "deployment", "settings", "is_fixed", "units", "priority", "held", "holding", "decision")
_APP = shape(
    _REQUIRED,
    name=TEXT,
    deployment=TEXT,
    settings={"type": "object"},
    is_fixed={"type": "boolean"},
    units={**COUNT, "description": "Accelerators that one replica holds."},
    priority=COUNT,
    held={**COUNT, "description": "Requests that Routers hold for it."},
    holding={**COUNT, "description": "Replicas, whatever their state."},
    decision={"type": ["object", "null"]},
)
_APPS: Schema = {"type": "array", "items": _APP}
SHOW = Operation(
    "Show how the numbers of replicas stand",
    TAG,
    ADMIN,
    answers={JSON_TYPE: shape(["budget", "apps"], budget=_BUDGET, apps=_APPS)},
    errors=(403, 503),
)


class ScalingView(Protocol):
    """Rollouts, as those who ask about replicas see it."""

    async def scaling(self) -> dict[str, Any]:
        """Return the budget and every application."""
        ...


def routes(inference: Inference, view: ScalingView) -> list[Route]:
    """Return the routes."""

    async def show(request: Request, answer: Answer) -> None:
        inference.view.authorize_admin(request.caller)
        await answer.json(await view.scaling())

    return [Route("GET", PATH, show, operation=SHOW)]
