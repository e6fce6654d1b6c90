"""A fake engine inside ray.serve.llm's own server class: the tokens of `FakeSpec`, made in the replica itself.

Cheaper than the native fake behind a socket, and so in ray.serve.llm's favour. Runs on the cluster; the rest of the
benchmark names it by its path and never imports it, as ray.llm imports vLLM.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from ray.llm._internal.serve.core.configs.llm_config import LLMConfig
from ray.llm._internal.serve.core.configs.openai_api_models import ChatCompletionResponse
from ray.llm._internal.serve.core.engine.protocol import LLMEngine
from ray.serve.llm.deployment import LLMServer

from benchmarks.data_path.contracts import FakeSpec

TTFT_MS, ITL_MS = "fake_ttft_ms", "fake_itl_ms"  # in LLMConfig.experimental_configs
DEFAULT_TOKENS = 16

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def packets(model: str, tokens: int) -> Iterator[str]:
    """Yield what leaves with each token, in the shape of vLLM's events; role, end and [DONE] travel with a token."""
    start = json.dumps({"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion.chunk", "created": int(time.time())})
    start = f"data: {start[:-1].replace(': ', ':').replace(', ', ',')},{json.dumps('model')}:{json.dumps(model)},"

    def event(delta: str, end: str) -> str:
        return f'{start}"choices":[{{"index":0,"delta":{delta},"logprobs":null,{end}}}]}}\n\n'

    open_end = '"finish_reason":null'
    for number in range(tokens):
        packet = event(f'{{"content":" tok{number % 10_000:04d}"}}', open_end)
        if number == 0:
            packet = event('{"role":"assistant","content":""}', open_end) + packet
        if number == tokens - 1:
            packet += event('{"content":""}', '"finish_reason":"length","stop_reason":null') + "data: [DONE]\n\n"
        yield packet


def whole(model: str, tokens: int) -> dict[str, Any]:
    """Return the answer to a request without "stream"."""
    message = {"role": "assistant", "content": "".join(f" tok{number % 10_000:04d}" for number in range(tokens))}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1},
    }


def whole_s(spec: FakeSpec, tokens: int) -> float:
    """Return how long the last token takes."""
    return (spec.ttft_ms + (tokens - 1) * spec.itl_ms) / 1000


async def paced(spec: FakeSpec, model: str, tokens: int) -> AsyncGenerator[str, None]:
    """Yield each token's packet at its time after the request came."""
    clock = asyncio.get_running_loop().time
    came_s = clock()
    for number, packet in enumerate(packets(model, tokens)):
        wait_s = came_s + (spec.ttft_ms + number * spec.itl_ms) / 1000 - clock()
        if wait_s > 0:  # late: catch up, as the native fake does
            await asyncio.sleep(wait_s)
        yield packet


def settings_of(config: LLMConfig) -> tuple[FakeSpec, str]:
    """Return the latency model and the model's name that a configuration carries."""
    settings = config.experimental_configs
    return FakeSpec(ttft_ms=settings[TTFT_MS], itl_ms=settings[ITL_MS]), config.model_id


class FakeEngine(LLMEngine):
    """Takes the place of `VLLMEngine`; chat completions only."""

    def __init__(self, llm_config: LLMConfig) -> None:
        self._spec, self._model = settings_of(llm_config)

    async def start(self) -> None:
        """Nothing to load."""

    async def chat(  # type: ignore[override]  # Ray declares a coroutine and iterates over a generator
        self,
        request: Any,
        raw_request_info: Any = None,  # noqa: ARG002
    ) -> AsyncGenerator[Any, None]:
        """Yield a stream's packets, or one whole answer."""
        tokens = request.max_completion_tokens or request.max_tokens or DEFAULT_TOKENS
        if request.stream:
            async for packet in paced(self._spec, self._model, tokens):
                yield packet
            return
        await asyncio.sleep(whole_s(self._spec, tokens))
        yield ChatCompletionResponse(**whole(self._model, tokens))

    def routing_stats(self) -> dict[str, Any]:
        """Nothing to route by."""
        return {}

    async def completions(self, request: Any, raw_request_info: Any = None) -> Any:
        """Not faked."""
        raise NotImplementedError

    async def embeddings(self, request: Any, raw_request_info: Any = None) -> Any:
        """Not faked."""
        raise NotImplementedError

    async def transcriptions(self, request: Any, raw_request_info: Any = None) -> Any:
        """Not faked."""
        raise NotImplementedError

    async def resolve_lora(self, lora_model: Any) -> None:
        """Not faked."""
        raise NotImplementedError

    async def reset_prefix_cache(self) -> None:
        """Nothing to reset."""


class FakeServer(LLMServer):
    """ray.serve.llm's server around the fake engine."""

    _default_engine_cls = FakeEngine  # type: ignore[assignment]  # declared as None

    async def __serve_build_asgi_app__(self) -> DirectApp:
        # Without the middleware and the route that it adds to vLLM's FastAPI application: less work per request.
        spec, model = settings_of(self._llm_config)
        return DirectApp(spec, model)


class DirectApp:
    """The smallest ASGI application that answers a streamed chat: what is left is HAProxy and the replica's server."""

    def __init__(self, spec: FakeSpec, model: str) -> None:
        self._spec = spec
        self._model = model

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["path"] == "/v1/chat/completions":
            await self._chat(receive, send)
        else:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def _chat(self, receive: Receive, send: Send) -> None:
        request = json.loads(await _body(receive))
        tokens = request.get("max_completion_tokens") or request.get("max_tokens") or DEFAULT_TOKENS
        if not request.get("stream"):
            await asyncio.sleep(whole_s(self._spec, tokens))
            await _start(send, b"application/json")
            await send({"type": "http.response.body", "body": json.dumps(whole(self._model, tokens)).encode()})
            return
        await _start(send, b"text/event-stream; charset=utf-8")
        async for packet in paced(self._spec, self._model, tokens):
            await send({"type": "http.response.body", "body": packet.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, content_type: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
