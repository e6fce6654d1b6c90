"""/admin/timeline: how every variant stood in the last minutes, for charts."""

from __future__ import annotations

import time
from collections.abc import Iterator

from serve_app.inference import Inference
from serve_app.rest.answer import Answer
from serve_app.rest.document_schemas import COUNT, TEXT, Schema, shape
from serve_app.rest.operation import JSON_TYPE, Operation
from serve_app.rest.request import Request
from serve_app.rest.rollouts import ADMIN, TAG
from serve_app.rest.routing import Route
from serve_app.timeline import Figures, Timeline

PATH = "/admin/timeline"

_NUMBERS: Schema = {"type": "array", "items": {"type": ["integer", "null"]}}
_SERIES = shape(["model", "variant", *Figures._fields], model=TEXT, variant=TEXT, **dict.fromkeys(Figures._fields, _NUMBERS))
_TIMELINE = shape(
    ["every_s", "kept_s", "times", "series"],
    every_s=COUNT,
    kept_s=COUNT,
    times={"type": "array", "items": COUNT},
    series={"type": "array", "items": _SERIES},
)
SHOW = Operation(
    "Show how every variant stood in the last minutes",
    TAG,
    f"{ADMIN} Each Router keeps its own; times are multiples of `every_s`, so that those of several fit together.",
    answers={JSON_TYPE: _TIMELINE},
    errors=(403,),
)


def routes(inference: Inference, timeline: Timeline) -> Iterator[Route]:
    """Yield the route."""

    async def show(request: Request, answer: Answer) -> None:
        inference.view.authorize_admin(request.caller)
        await answer.json(timeline.report(now_s=time.time()))

    yield Route("GET", PATH, show, operation=SHOW)
