"""Faults: what is wrong with a simulated engine, as it is configured and as a chaos test switches it while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncGenerator
from enum import StrEnum
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.llm.engine import PROBE_SCOPE
from serve_app.config import SimulatedFaults, SwitchedFaults

logger = logging.getLogger("ray.serve")

FAULTS_PATH = "/simulated/faults"
GARBAGE = b"\x00\xffHTTP/0.9 \x16\x03\x01 }{ this is no event\xfe\r\n"


class Fault(StrEnum):
    """What is done to one request."""

    HANG = "hang"
    ERROR = "error"
    GARBAGE = "garbage"
    HALF_STREAM = "half_stream"
    SILENT_END = "silent_end"
    STALL = "stall"


class CutOnPurpose(RuntimeError):
    """The connection of a request is to be cut: its server closes it when its app raises."""


class Faults:
    """Decides what to do to each request; shares are spread evenly over the requests."""

    def __init__(self, declared: SimulatedFaults) -> None:
        self._declared = declared
        self._now: SwitchedFaults = declared
        self._requests = 0
        self._probes = 0

    @property
    def slow_factor(self) -> float:
        """What times are multiplied by."""
        return self._now.slow_factor

    @property
    def is_dead(self) -> bool:
        """Whether the engine plays dead."""
        return self._now.dead

    def routes(self) -> list[Route]:
        """Return the routes that read, replace and clear the faults."""
        return [
            Route(FAULTS_PATH, self._show, methods=["GET"]),
            Route(FAULTS_PATH, self._replace, methods=["POST"]),
            Route(FAULTS_PATH, self._clear, methods=["DELETE"]),
        ]

    def next(self, request: Request) -> Fault | None:
        """Return what to do to a request. May end the process. The replica's own probes count for themselves."""
        if request.scope.get(PROBE_SCOPE):
            self._probes += 1
            return self._due(self._probes)
        self._requests += 1
        crash_after = self._declared.crash_after_requests
        if crash_after is not None and self._requests > crash_after:
            os._exit(1)  # as a killed process would: nothing is drained, nobody is told
        return self._due(self._requests)

    def _due(self, number: int) -> Fault | None:
        shares = self._now
        return next((fault for fault in Fault if _is_due(number, getattr(shares, f"{fault}_ratio"))), None)

    async def _show(self, _: Request) -> Response:
        return JSONResponse(self._now.model_dump(include=set(SwitchedFaults.model_fields)))

    async def _replace(self, request: Request) -> Response:
        try:
            self._now = SwitchedFaults.model_validate_json(await request.body())
        except ValidationError as err:
            return _refusal(err)
        logger.warning("simulated faults were switched: %s", self._now.model_dump(exclude_defaults=True))
        return await self._show(request)

    async def _clear(self, request: Request) -> Response:
        self._now = self._declared
        logger.warning("simulated faults were switched back to those of the configuration")
        return await self._show(request)


async def spoil(parts: AsyncGenerator[bytes, None], fault: Fault, *, after: int) -> AsyncGenerator[bytes, None]:
    """Yield the first ``after`` parts of an answer, then do what the fault says. Raises CutOnPurpose for HALF_STREAM."""
    async with contextlib.aclosing(parts):
        done = 0
        while done < after and (part := await anext(parts, None)) is not None:
            yield part
            done += 1
        if fault is Fault.HALF_STREAM:
            raise CutOnPurpose("this connection is cut on purpose (simulated fault half_stream)")
        if fault is Fault.STALL:
            await asyncio.Event().wait()


def _is_due(number: int, ratio: float) -> bool:
    return int(number * ratio) > int((number - 1) * ratio)


def _refusal(err: ValidationError) -> Response:
    problems = [_problem(each) for each in err.errors(include_url=False)]
    message = "; ".join(f"{field}: {text}" if field else text for field, text in problems)
    error: dict[str, Any] = {"message": message, "type": "invalid_request_error", "param": problems[0][0] or None}
    return JSONResponse({"error": {**error, "code": "invalid_request"}}, status_code=400)


def _problem(error: Any) -> tuple[str, str]:
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return field, f"is no fault; there are {', '.join(SwitchedFaults.model_fields)}"
    return field, f"{error['msg']}, got {json.dumps(error['input'], default=str)[:80]}"
