"""What an API server refuses: fields that it does not know, and values of a wrong type."""

from __future__ import annotations

from typing import Any

import kubernetes_validate

from tests.chart import crd_schema

Json = dict[str, Any]
VERSION = "1.36"


def refusal(body: Json) -> str:
    """Return why an object is refused, in words like the API server's, or nothing."""
    kind, name = body["kind"], body["metadata"]["name"]
    problems = crd_schema.problems(body) if (body["apiVersion"], kind) in crd_schema.schemas() else _builtin(body)
    return f'{kind} "{name}" is invalid: {"; ".join(problems)}' if problems else ""


def _builtin(body: Json) -> list[str]:
    try:
        kubernetes_validate.validate(body, VERSION, strict=True)
    except kubernetes_validate.ValidationError as err:
        return [f"{'.'.join(map(str, err.path))}: {err.message}"]
    return []
