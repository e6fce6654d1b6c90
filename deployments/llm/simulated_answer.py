"""SimulatedAnswer: OpenAI's response objects for one answer of the simulated engine, with token ids where vLLM has them."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from deployments.llm.simulated_tokens import Token

DONE = b"data: [DONE]\n\n"


class EngineDied(RuntimeError):
    """The engine has died while an answer was generated."""


class SimulatedAnswer:
    """One answer, as a stream or whole."""

    def __init__(self, model: str, prompt: Sequence[int], *, is_chat: bool, has_ids: bool) -> None:
        """``has_ids``: whether the client asked for token ids (``return_token_ids``)."""
        self._is_chat = is_chat
        self._prompt = prompt
        self._has_ids = has_ids
        self._kind = "chat.completion" if is_chat else "text_completion"
        self._head = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": "simulated",
        }

    async def stream(self, tokens: AsyncGenerator[Token, None]) -> AsyncGenerator[bytes, None]:
        """Yield one server-sent event per token, a last one with the finish reason, then [DONE].

        With token ids, a chat begins with an event that has its prompt's; a completion's first event has them. An engine
        that dies ends it with an error's event, as vLLM does.
        """
        if self._has_ids and self._is_chat:
            role = {"delta": {"role": "assistant", "content": ""}}
            yield self._event(role, prompt_token_ids=self._prompt)
        try:
            async with contextlib.aclosing(tokens):  # a client that leaves gives its slot back at once
                is_first = True
                async for token in tokens:
                    yield self._event(self._choice(token, is_first=is_first))
                    is_first = False
        except EngineDied as err:
            error = {"message": str(err), "type": "InternalServerError", "param": None, "code": 500}
            yield _event({"error": error})
        else:
            yield self._event(self._choice(None, is_first=False))
        yield DONE

    def whole(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """Return the answer of a request that did not ask for a stream."""
        text = "".join(token.text for token in tokens)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        document: dict[str, Any] = {**self._head, "object": self._kind, "choices": [choice]}
        if self._has_ids:
            choice["token_ids"] = [token.id for token in tokens]
            (document if self._is_chat else choice)["prompt_token_ids"] = self._prompt
        total = len(self._prompt) + len(tokens)
        usage = {"prompt_tokens": len(self._prompt), "completion_tokens": len(tokens), "total_tokens": total}
        return {**document, "usage": usage}

    def _choice(self, token: Token | None, *, is_first: bool) -> dict[str, Any]:
        """Return what a token adds; None: the end."""
        text = token.text if token is not None else ""
        choice: dict[str, Any] = {"finish_reason": "length" if token is None else None, "logprobs": None}
        choice |= {"delta": {"content": text} if text else {}} if self._is_chat else {"text": text}
        if self._has_ids:
            choice["token_ids"] = [token.id] if token is not None else []
            if is_first and not self._is_chat:
                choice["prompt_token_ids"] = self._prompt
        return choice

    def _event(self, choice: dict[str, Any], **more: Any) -> bytes:
        kind = f"{self._kind}.chunk" if self._is_chat else self._kind
        return _event({**self._head, "object": kind, "choices": [{"index": 0, **choice}], **more})


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"
