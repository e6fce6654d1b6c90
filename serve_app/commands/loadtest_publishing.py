"""How `manta loadtest --publish` tells rollouts of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import httpx
import typer

from loadtests.publishing import RESULTS, Looks, PublishError, look, publish, summary
from loadtests.result import Result
from loadtests.scenario import Scenario
from serve_app.errors import CommandError
from serve_app.rollout.load_tests import Traffic


class Publication:
    """A run that is to be published: make it before the run."""

    def __init__(self, http: httpx.Client, scenario: Scenario, begin: Traffic) -> None:
        self._http = http
        self._scenario = scenario
        self._begin = begin
        self._failure: PublishError | None = None

    @classmethod
    def begin(cls, http: httpx.Client, scenario: Scenario) -> Self:
        """Look at the traffic before the run. Raises CommandError: it would be of no use, as it could not be published."""
        try:
            return cls(http, scenario, look(http, scenario))
        except PublishError as err:
            raise CommandError(str(err)) from err

    def told(self, result: Result, run: Mapping[str, Any]) -> Result:
        """Look at the traffic after the run, and return the result with what is published of it, if it can be said."""
        try:
            looks = Looks(self._begin, look(self._http, self._scenario))
            return replace(result, summary=summary(result, looks, begun_s=float(run["begin_unix_s"])))
        except PublishError as err:
            self._failure = err  # told when everything has been written
            return result

    def send(self, result: Result, *, written: Path | None, sleep: Callable[[float], None] = time.sleep) -> None:
        """Publish a result that is on the screen already, and in a file where one was asked for. Raises PublishError."""
        if self._failure is not None:
            raise self._failure
        if (told := result.summary) is None:
            raise PublishError("--publish: the run has no gates, so there is nothing to tell")
        try:
            publish(self._http, told, sleep=sleep)
        except PublishError as err:
            if written is None:  # or nobody could send it again
                typer.echo(told.model_dump_json())
            where = f"`summary` in {written}" if written is not None else "the line above"
            raise PublishError(f"{err}; to send it again, POST {where} to {RESULTS}/{told.scenario}") from err
        typer.echo(f"published: {told.scenario} {told.verdict}")
