"""The search query of a conversation: its last question, made to stand alone."""

from __future__ import annotations

import asyncio
import json
import logging
import re

from serve_app.answerer import Answerer
from serve_app.config_pipelines import CondenseConfig, PipelineVersionConfig
from serve_app.errors import ErrorKind, PlatformError, UnknownModel
from serve_app.gateway import Call, Gateway
from serve_app.observing.record import RequestRecord
from serve_app.prompts import Turn
from serve_app.rag.chat import ChatForm
from serve_app.rag.inner import inner_call
from serve_app.rag.turns import Asked
from serve_app.view import Prompt

logger = logging.getLogger("ray.serve")

CHAT_PATH = "/v1/chat/completions"
TURN_CHARS = 2000  # of each earlier message: what was talked about shows itself early
QUERY_CHARS = 1000
_THOUGHTS = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)
# Said to the caller, not of the query: the caller's own request would fare no better.
_CALLERS_OWN = frozenset({ErrorKind.RATE_LIMITED, ErrorKind.UNAUTHENTICATED, ErrorKind.FORBIDDEN})


async def search_query(gateway: Gateway, call: Call, *, version: PipelineVersionConfig, prompt: Prompt, asked: Asked) -> str:
    """Return what to search for: the question, or with ``condense`` and a history what a model makes of both.

    A model that fails, is late or says nothing costs the query, never the request.

    Raises:
        RateLimited, Unauthenticated, Forbidden: the caller may not send this request now.
    """
    config = version.condense
    if config is None or not asked.history:
        return asked.question
    timeout_s = call.deadline.bound(config.timeout_s)
    request = await asyncio.to_thread(prompt.render_condense, asked.question, _latest(asked, config))
    try:
        with call.record.stage("condense"):
            async with asyncio.timeout(timeout_s):
                query = await _written(gateway, call, model=config.model or version.model, config=config, request=request)
    except PlatformError as err:
        if err.kind in _CALLERS_OWN:
            raise
        logger.warning("request %s: no query made of its history: %s", call.request_id, err.message)
    except TimeoutError:
        logger.warning("request %s: no query made of its history in %.3g s", call.request_id, timeout_s)
    except Exception:
        logger.exception("request %s: no query made of its history", call.request_id)
    else:
        return query or asked.question
    return asked.question


def _latest(asked: Asked, config: CondenseConfig) -> list[Turn]:
    return [Turn(turn.role, turn.text[:TURN_CHARS]) for turn in asked.history[-config.history_turns :]]


async def _written(gateway: Gateway, call: Call, *, model: str, config: CondenseConfig, request: str) -> str:
    """Return the query that the model writes, or nothing."""
    callee = gateway.view.callee(model)
    if callee is None:
        raise UnknownModel(model)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": request}],
        "temperature": 0,
        "max_tokens": config.max_tokens,
        "stream": False,
    }
    # An id of its own, since engines take two requests with one id for one; and who writes the query answers no client.
    own = {"request_id": f"{call.request_id}-query", "answerer": Answerer(), "record": RequestRecord()}
    inner = inner_call(call, body, path=CHAT_PATH, **own)
    reply = await gateway.relay(inner, *callee)
    if not isinstance(reply.body, bytes):  # asked for or not
        await reply.body.aclose()
        return ""
    document = json.loads(reply.body)
    return _query(ChatForm().text(document)) if isinstance(document, dict) else ""


def _query(text: str) -> str:
    words = " ".join(_THOUGHTS.sub(" ", text).split()).strip("\"'")
    # Half a surrogate pair, which JSON may hold, is no text to an embedder.
    return words[:QUERY_CHARS].encode(errors="ignore").decode()
