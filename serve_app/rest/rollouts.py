"""/admin/rollouts: how canaries stand, what was decided, and an operator's commands."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from serve_app.errors import Forbidden, PlatformError, UnknownRollout, UnknownRoute, quoted
from serve_app.inference import Inference
from serve_app.rest.answer import Answer
from serve_app.rest.document_schemas import COUNT, TEXT, Schema, shape
from serve_app.rest.operation import JSON_TYPE, Operation
from serve_app.rest.request import Request
from serve_app.rest.routing import Route
from serve_app.rollout.commands import Verb

logger = logging.getLogger("ray.serve")

ALL = "/admin/rollouts"
ONE = f"{ALL}/{{name}}"
TAG = "operations"
ADMIN = "For keys with `admin: true`."
ERRORS = (403, 404, 503)
OF_ALL = ("table", "routers", "refused")  # what is said of all splits alike

_THINGS: Schema = {"type": "array", "items": {"type": "object"}}
_COMMON: Mapping[str, Schema] = {
    "table": {"type": "object"},
    "routers": {"type": "object"},
    "refused": {"type": ["string", "null"]},
}
_PHASE: Schema = {"type": ["string", "null"]}
_MANY = shape(list(OF_ALL), **_COMMON, splits=_THINGS, stats=_THINGS, shadows=_THINGS)
_SINGLE = shape(["name", "phase", "weights"], **_COMMON, name=TEXT, phase=_PHASE, weights={"type": "object"})
_DECISION = shape(["action", "weights", "reason"], action=TEXT, phase=TEXT, step=COUNT, weights={"type": "object"}, reason=TEXT)
_DECISIONS = shape(["decisions"], decisions={"type": "array", "items": _DECISION})

LIST = Operation("Show how all traffic is split", TAG, ADMIN, answers={JSON_TYPE: _MANY}, errors=(403, 503))
SHOW = Operation("Show how one model's or pipeline's rollout stands", TAG, ADMIN, answers={JSON_TYPE: _SINGLE}, errors=ERRORS)
HISTORY = Operation("List the decisions on one rollout", TAG, ADMIN, answers={JSON_TYPE: _DECISIONS}, errors=ERRORS)
COMMAND = Operation(
    "Command a rollout",
    TAG,
    f"{ADMIN} The answer is the decision; it is kept when the answer comes.",
    answers={JSON_TYPE: _DECISION},
    path={"verb": {"enum": [verb.value for verb in Verb]}},
    errors=(*ERRORS, 409),
)


class RolloutControl(Protocol):
    """Rollouts, as operators see it."""

    async def rollouts(self) -> dict[str, Any]:
        """Return how every split stands."""
        ...

    async def history(self, name: str) -> list[dict[str, Any]]:
        """Return the decisions on one, oldest first. Raises UnknownRollout."""
        ...

    async def command(self, name: str, verb: Verb, *, by: str) -> dict[str, Any]:
        """Do what an operator says, and return the record of it. Raises UnknownRollout, RolloutConflict."""
        ...


def routes(inference: Inference, control: RolloutControl) -> list[Route]:
    """Return the routes."""
    rollouts = RolloutRoutes(inference, control)
    return [
        Route("GET", ALL, rollouts.list, operation=LIST),
        Route("GET", ONE, rollouts.show, operation=SHOW),
        Route("GET", f"{ONE}/history", rollouts.history, operation=HISTORY),
        Route("POST", f"{ONE}/{{verb}}", rollouts.command, operation=COMMAND),
    ]


class RolloutRoutes:
    """Handlers over a RolloutControl; all are for admins."""

    def __init__(self, inference: Inference, control: RolloutControl) -> None:
        self._inference = inference
        self._control = control

    async def list(self, request: Request, answer: Answer) -> None:
        """Show everything."""
        self._authorize(request)
        await answer.json(await self._control.rollouts())

    async def show(self, request: Request, answer: Answer) -> None:
        """Show one model or pipeline."""
        self._authorize(request)
        await answer.json(one_of(await self._control.rollouts(), request.params["name"]))

    async def history(self, request: Request, answer: Answer) -> None:
        """List decisions, oldest first."""
        self._authorize(request)
        await answer.json({"decisions": await self._control.history(request.params["name"])})

    async def command(self, request: Request, answer: Answer) -> None:
        """Do what the operator says; the log keeps who it was, also of what was refused."""
        self._authorize(request)
        refuse_other_pages(self._inference, request)
        name, verb, by = request.params["name"], verb_of(request.params["verb"]), request.caller.name
        asked = f"rollout of {quoted(name)}: {verb.value} by key {by}, request {request.request_id}"
        try:
            made = await self._control.command(name, verb, by=by)
        except PlatformError as err:
            logger.info("%s: refused: %s", asked, err.message)
            raise
        logger.info("%s: done", asked)
        await answer.json(made)

    def _authorize(self, request: Request) -> None:
        self._inference.view.authorize_admin(request.caller)


def refuse_other_pages(inference: Inference, request: Request) -> None:
    """Raise Forbidden for what a web page of another origin makes a browser send: without keys it could do anything."""
    origin = request.header("origin")
    if origin is None or urlsplit(origin).netloc == request.header("host"):
        return
    if origin not in inference.view.document.cors_origins:
        raise Forbidden("a page of another origin may not command rollouts; add it to `router.cors_origins` if it may")


def verb_of(text: str) -> Verb:
    """Return a command by its name. Raises UnknownRoute, which lists them."""
    try:
        return Verb(text)
    except ValueError as err:
        raise UnknownRoute(f"there is no command {quoted(text)} for rollouts; use one of: {', '.join(Verb)}") from err


def one_of(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what a report says of one model or pipeline. Raises UnknownRollout."""
    split = next((split for split in report["splits"] if split["name"] == name), None)
    if split is None:
        raise UnknownRollout(name)
    theirs = {part: [each for each in report[part] if each["name"] == name] for part in ("stats", "shadows")}
    return {**split, **theirs, **{part: report[part] for part in OF_ALL}}
