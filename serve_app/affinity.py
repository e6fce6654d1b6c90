"""Affinity key: what pins a conversation to one variant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from serve_app.errors import BadRequest

MAX_SESSION_CHARS = 256


def affinity_key(tenant: str, body: Mapping[str, Any], *, session_id: str | None = None) -> str:
    """Return the key of a request's conversation.

    The first of: the session id, the ``user`` field, a digest of the leading messages (system and first user
    message, so a growing chat keeps its key), a digest of the prompt. The tenant is always part of it.
    """
    if session_id:
        return f"{tenant}/s/{session_id[:MAX_SESSION_CHARS]}"
    if isinstance(user := body.get("user"), str) and user:
        return f"{tenant}/u/{user[:MAX_SESSION_CHARS]}"
    return f"{tenant}/h/{_digest(_leading(body))}"


def _leading(body: Mapping[str, Any]) -> object:
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body.get("prompt", body.get("input"))
    lead = []
    for message in messages:
        lead.append(message)
        if isinstance(message, dict) and message.get("role") == "user":
            break
    return lead


def _digest(value: object) -> str:
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as err:
        raise BadRequest("the body is nested too deeply") from err
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
