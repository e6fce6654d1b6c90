"""Wire models of the endpoints that Manta answers itself: embeddings and the list of models."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from serve_app.config import ApiKeyConfig
from serve_app.contracts import EmbeddingFingerprint
from serve_app.errors import BadRequest
from serve_app.inference import Embeddings
from serve_app.view import RoutingView


class EmbeddingsRequest(BaseModel):
    """Body of POST /v1/embeddings; fields that we do not know are ignored, as OpenAI's servers do."""

    model_config = ConfigDict(extra="ignore")

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

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


def model_cards(view: RoutingView, caller: ApiKeyConfig) -> list[dict[str, Any]]:
    """Return a card for everything the caller may name as ``model``."""
    cards = [
        _card(m.name, "model", variants=[v.name for v in m.variants], engine=m.variants[0].engine) for m in view.models.values()
    ]
    cards += [_card(p.name, "pipeline", versions=[v.name for v in p.versions]) for p in view.pipelines.values()]
    cards += [_card(name, "embedder") for name in sorted(view.embedders)]
    return [card for card in cards if view.may_use(caller, card["id"])]


def _card(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "manta", "kind": kind, **more}


def embedder_card(card: dict[str, Any], fingerprint: EmbeddingFingerprint) -> dict[str, Any]:
    """Return an embedder's card with what its vectors are."""
    embedding = {
        "model": fingerprint.model,
        "dimension": fingerprint.dimension,
        "normalized": fingerprint.normalized,
    }
    return {**card, "embedding": embedding}
