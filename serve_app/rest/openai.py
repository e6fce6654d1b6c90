"""Wire models of /v1/embeddings, which Manta answers itself."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from serve_app.errors import BadRequest
from serve_app.inference import Embeddings


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
