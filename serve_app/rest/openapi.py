"""The OpenAPI document: built from the route table, so that what is served and what is said are one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from serve_app.deadline import TIMEOUT_HEADER
from serve_app.dialect import is_anthropic
from serve_app.rest.errors import FORMS
from serve_app.rest.operation import Operation, Schema
from serve_app.rest.routing import PARAMETER, Route

Json = dict[str, Any]
REFERENCES = "#/components/schemas/{model}"
VERSION = "1"  # of the interface, as in /v1: nothing of the platform that serves it can be read from it
_REASONS = {
    400: "The request cannot be understood; `param` names the field.",
    401: "No key, or one that nobody issued or that has expired.",
    403: "The key may not do this.",
    404: "Nothing of this name is served here.",
    405: "The path exists, but not for this method; `allow` lists those it has.",
    409: "What is stored does not allow it.",
    413: "The body is larger than allowed.",
    429: "A limit is reached; `retry-after` says when to come back.",
    500: "An error of the platform's own.",
    503: "Nothing healthy can take the request now.",
    504: "The time for the request ran out.",
}
_TEXT = {"schema": {"type": "string"}}
_HEADERS: Json = {
    "x-request-id": {"description": "Names the request in logs: the client's own id, or a new one.", **_TEXT},
    "x-manta-model": {"description": "Which model answered.", **_TEXT},
    "x-manta-variant": {"description": "Which variant of it; `embedder` for embedders.", **_TEXT},
    "x-manta-pipeline-version": {"description": "Which version of the pipeline, if one was called.", **_TEXT},
    "x-manta-skipped": {"description": "Stages that a pipeline's answer does without, such as `retrieval`.", **_TEXT},
    "x-manta-adapter-version": {"description": "Which version of the adapter, if one answered.", **_TEXT},
    "retry-after": {"description": "Seconds after which a retry makes sense.", "schema": {"type": "integer"}},
}
_TIMEOUT: Json = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "description": "Seconds that the client waits for the answer; never more than `limits.deadline_s` of the platform.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_ERROR_FIELDS = {
    "message": {"type": "string"},
    "type": {"enum": sorted({form.openai for form in FORMS.values()})},
    "param": {"type": ["string", "null"]},
    "code": {"type": "string"},
}
_ANTHROPIC_FIELDS = {"type": {"enum": sorted({form.anthropic for form in FORMS.values()})}, "message": {"type": "string"}}


def _object(fields: Json) -> Json:
    return {"type": "object", "properties": fields, "required": list(fields)}


_SCHEMAS: Json = {
    "Error": _object({"error": _object(_ERROR_FIELDS)}),
    "AnthropicError": _object(
        {"type": {"const": "error"}, "error": _object(_ANTHROPIC_FIELDS), "request_id": {"type": ["string", "null"]}}
    ),
}
_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`, as OpenAI's clients send it."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "As Anthropic's clients send it."},
}


def openapi_document(routes: Iterable[Route], *, has_keys: bool) -> Json:
    """Return the document of all routes that have an operation. It does not depend on what is deployed."""
    schemas = dict(_SCHEMAS)
    paths: Json = {}
    for route in routes:
        if route.operation is not None:
            described = _described(route, route.operation, schemas, has_keys=has_keys)
            paths.setdefault(route.template, {})[route.method.lower()] = described
    components: Json = {"schemas": schemas, "headers": _HEADERS}
    if has_keys:
        components["securitySchemes"] = _SCHEMES
    info = {
        "title": "Manta",
        "version": VERSION,
        "description": "Models, RAG pipelines and embedders behind OpenAI's and Anthropic's interfaces.",
    }
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def _described(route: Route, operation: Operation, schemas: Json, *, has_keys: bool) -> Json:
    is_locked = has_keys and not route.is_open
    found: Json = {
        "operationId": _operation_id(route),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(route, operation),
        "responses": _responses(route, operation, schemas, is_locked=is_locked),
    }
    if operation.description:
        found["description"] = operation.description
    if operation.bodies:
        content = {kind: {"schema": _schema(body, schemas)} for kind, body in operation.bodies.items()}
        found["requestBody"] = {"required": True, "content": content}
    if is_locked:
        found["security"] = [{name: []} for name in _SCHEMES]
    return found


def _operation_id(route: Route) -> str:
    words = [word for word in route.template.replace("{", "").replace("}", "").replace(".", "/").split("/") if word]
    return "_".join([route.method.lower(), *words, *(["slash"] if route.template.endswith("/") else [])])


def _parameters(route: Route, operation: Operation) -> list[Json]:
    text: Mapping[str, Any] = {"type": "string", "minLength": 1}
    named = [
        {"name": name, "in": "path", "required": True, "schema": dict(operation.path.get(name, text))}
        for name in PARAMETER.findall(route.template)
    ]
    asked = [{"name": name, "in": "query", "schema": dict(schema)} for name, schema in operation.query.items()]
    return [*named, *asked, *([] if route.is_open else [_TIMEOUT])]


def _responses(route: Route, operation: Operation, schemas: Json, *, is_locked: bool) -> Json:
    content = {kind: {"schema": _schema(schema, schemas)} for kind, schema in operation.answers.items()}
    names = ["x-request-id"]
    if operation.names_answerer:
        names += [name for name in _HEADERS if name.startswith("x-manta")]
    good = {"description": "Done.", "content": content, "headers": _references(names)}
    statuses = {500, *operation.errors, *((401,) if is_locked else ())}
    if not route.is_open:
        statuses |= {400, 504}  # a time limit that is none, and one that is over
    form = "AnthropicError" if is_anthropic(route.template) else "Error"
    errors = {str(status): _error(status, form, names) for status in sorted(statuses)}
    return {str(operation.status): good, **errors}


def _error(status: int, form: str, names: list[str]) -> Json:
    told = [*names, "retry-after"] if status in (429, 503) else names
    schema = {"$ref": REFERENCES.format(model=form)}
    return {
        "description": _REASONS[status],
        "content": {"application/json": {"schema": schema}},
        "headers": _references(told),
    }


def _references(names: list[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _schema(schema: Schema, schemas: Json) -> Json:
    """Return a schema; a pydantic model's goes into the components, with the models that it is made of."""
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return dict(schema)
    found = schema.model_json_schema(ref_template=REFERENCES)
    schemas.update(found.pop("$defs", {}))
    schemas[schema.__name__] = found
    return {"$ref": REFERENCES.format(model=schema.__name__)}
