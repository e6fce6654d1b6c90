"""InnerCall: a call of the chain's own, on behalf of a caller's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from serve_app.gateway import Call


@dataclasses.dataclass(frozen=True, slots=True)
class InnerCall(Call):
    """A call to a pipeline's model, in the conversation and on the account of the call to the pipeline."""

    outer_affinity: str = ""

    @property
    def affinity(self) -> str:
        """The affinity of the request as sent: each question's passages differ, the conversation does not."""
        return self.outer_affinity


def inner_call(call: Call, body: Mapping[str, Any], **changes: Any) -> InnerCall:
    """Return the call with another body; all that it does not change is the outer call's."""
    same = {field.name: getattr(call, field.name) for field in dataclasses.fields(Call) if field.init}
    new = {"body": body, "raw": json.dumps(body).encode(), "outer_affinity": call.affinity}
    return InnerCall(**{**same, **new, **changes})
