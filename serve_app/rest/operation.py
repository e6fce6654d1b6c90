"""Operation: what the OpenAPI document says of a route beyond its method and path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

JSON_TYPE = "application/json"
FORM_TYPE = "multipart/form-data"
STREAM_TYPE = "text/event-stream"
# A pydantic model, or a JSON schema as it stands.
Schema = type[BaseModel] | Mapping[str, Any]
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. Parameters of the path are read from the route's template; errors that any route may give are added.

    Attributes:
        bodies: content type -> schema of the request's body.
        answers: content type -> schema of the answer; a type that is not JSON may have an empty schema.
        query: name -> schema of a parameter in the query.
        path: name -> schema of a parameter in the path, where there is more to say than that it is a text.
        errors: statuses that it may answer beyond those of every route.
        names_answerer: whether the answer carries ``x-manta-model`` and its kin.
    """

    summary: str
    tag: str
    description: str = ""
    bodies: Mapping[str, Schema] = field(default_factory=dict)
    answers: Mapping[str, Schema] = field(default_factory=lambda: {JSON_TYPE: NOTHING})
    status: int = 200
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    path: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    names_answerer: bool = False
