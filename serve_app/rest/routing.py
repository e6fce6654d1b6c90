"""Routes of the REST front: which handler answers a method and a path."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from serve_app.errors import MethodNotAllowed, UnknownRoute
from serve_app.rest.answer import Answer
from serve_app.rest.operation import Operation
from serve_app.rest.request import Request

Handler = Callable[[Request, Answer], Awaitable[None]]
PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path template such as ``/v1/files/{file_id}``; a parameter is one segment of the path."""

    method: str
    template: str
    handle: Handler
    is_open: bool = False  # answered without a key
    operation: Operation | None = None  # what the OpenAPI document says of it; every route that is served has one


class Match(NamedTuple):
    """The route of a request and the parameters in its path."""

    route: Route
    params: dict[str, str]


class RouteTable:
    """Finds routes; paths without parameters are looked up, the others tried in their order."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[str, dict[str, Route]] = {}
        self._templates: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        self.routes = tuple(routes)
        for route in self.routes:
            self._methods(route.template)[route.method] = route

    def match(self, method: str, path: str) -> Match:
        """Return the route. Raises UnknownRoute for the path, MethodNotAllowed for the method."""
        methods, params = self._find(path)
        if methods is None:
            raise UnknownRoute(f"unknown request URL: {method[:20]} {path[:200]}")
        # Servers leave the body of a HEAD's answer out.
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            raise MethodNotAllowed(method[:20], path[:200], sorted(methods))
        return Match(route, params)

    def _find(self, path: str) -> tuple[dict[str, Route] | None, dict[str, str]]:
        if (methods := self._fixed.get(path)) is not None:
            return methods, {}
        for pattern, methods in self._templates:
            if found := pattern.fullmatch(path):
                return methods, found.groupdict()
        return None, {}

    def _methods(self, template: str) -> dict[str, Route]:
        if "{" not in template:
            return self._fixed.setdefault(template, {})
        pattern = re.compile(PARAMETER.sub(r"(?P<\1>[^/]+)", template))
        for known, methods in self._templates:
            if known.pattern == pattern.pattern:
                return methods
        self._templates.append((pattern, {}))
        return self._templates[-1][1]
