"""Wire models of what Manta answers itself: /v1/embeddings and the list of models."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from serve_app.errors import BadRequest
from serve_app.inference import Embeddings
from serve_app.model_cards import CREATED

MODEL_CARD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer", "description": "0: a platform does not know when its models were made."},
        "owned_by": {"const": "manta"},
        "kind": {"enum": ["model", "adapter", "pipeline", "embedder"]},
        "parent": {"type": "string", "description": "The model that an adapter is one of."},
        "engine": {"type": "string", "description": "`simulated` where no real model answers."},
        "max_model_len": {"type": "integer", "description": "Longest prompt plus answer, in tokens, where it is configured."},
        "variants": {"type": "array", "items": {"type": "object"}, "description": "With their weights; for admins."},
        "versions": {"type": "array", "items": {"type": "object"}, "description": "With their weights; for admins."},
        "embedding": {"type": "object", "description": "What an embedder's vectors are; on a single card only."},
    },
    "required": ["id", "object", "created", "owned_by", "kind"],
}


class EmbeddingsRequest(BaseModel):
    """Body of POST /v1/embeddings; fields that we do not know are ignored, as OpenAI's servers do."""

    model_config = ConfigDict(extra="ignore")

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    truncate_prompt_tokens: Literal[-1] | None = None  # vLLM's word for: cut a text at the model's window

    @property
    def texts(self) -> list[str]:
        """The texts to embed."""
        return [self.input] if isinstance(self.input, str) else self.input


def parse_embeddings(body: dict[str, Any]) -> EmbeddingsRequest:
    """Return the request. Raises BadRequest naming the first field at fault."""
    try:
        request = EmbeddingsRequest.model_validate(body)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else None
        raise BadRequest(f"{field}: {first['msg']}", param=field) from err
    return request


def embeddings_body(request: EmbeddingsRequest, embeddings: Embeddings) -> dict[str, Any]:
    """Return OpenAI's embeddings object; base64 holds little-endian 32-bit floats."""
    data = [
        {"object": "embedding", "index": i, "embedding": _encode(vector, request.encoding_format)}
        for i, vector in enumerate(embeddings.vectors)
    ]
    usage = {"prompt_tokens": embeddings.tokens, "total_tokens": embeddings.tokens}
    return {"object": "list", "model": request.model, "data": data, "usage": usage}


def _encode(vector: Sequence[float], encoding: str) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return list(vector)


def anthropic_list(cards: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the list of models as Anthropic's clients read it; the fields of OpenAI's cards stay on it."""
    made = datetime.fromtimestamp(CREATED, UTC).isoformat().replace("+00:00", "Z")
    data = [{**card, "type": "model", "display_name": card["id"], "created_at": made} for card in cards]
    ids = [card["id"] for card in cards]
    return {"data": data, "has_more": False, "first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
