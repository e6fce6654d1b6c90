"""How commands talk to a running platform: plain HTTP, like any client."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx

from serve_app.errors import CommandError

API_KEY = "MANTA_API_KEY"
STARTING = {404, 500, 503}  # of Serve's proxy itself, while no Router runs
TIMEOUT = httpx.Timeout(connect=5.0, read=900.0, write=60.0, pool=5.0)  # seconds; the first answer may wait for a start


def connect(url: str, *, api_key: str | None = None) -> httpx.Client:
    """Return a client of the platform at ``url``, with the key in MANTA_API_KEY when there is one, else this one."""
    require_url(url)
    key = os.environ.get(API_KEY) or api_key
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url.rstrip("/").removesuffix("/v1"), headers=headers, timeout=TIMEOUT)


def require_url(url: str) -> None:
    """Raise CommandError unless the text is an HTTP address."""
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"--url {url!r} must start with http://, such as http://127.0.0.1:8000")


def get_json(client: httpx.Client, path: str) -> dict[str, Any]:
    """Return the JSON at a path. Raises CommandError."""
    return _json(client, "GET", path)


def post_json(client: httpx.Client, path: str) -> dict[str, Any]:
    """Return the JSON that answers an order without a body. Raises CommandError."""
    return _json(client, "POST", path)


def _json(client: httpx.Client, method: str, path: str) -> dict[str, Any]:
    try:
        response = client.request(method, path)
    except httpx.HTTPError as err:
        raise _not_running(client) from err
    if response.status_code != 200:
        raise CommandError(_message(response.content, response.status_code))
    document: dict[str, Any] = response.json()
    return document


def stream_chat(client: httpx.Client, model: str, question: str) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a streamed chat answer. Raises CommandError."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": question}]}
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                raise CommandError(_message(response.read(), response.status_code))
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    yield _event(line[6:])
    except httpx.ConnectError as err:
        raise _not_running(client) from err
    except httpx.HTTPError as err:
        raise CommandError(f"the connection broke while the answer came: {err}") from err


def _event(text: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(text)
    if "error" in event:
        raise CommandError(str(event["error"].get("message", event["error"])))
    return event


def _message(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        if status in STARTING:
            return "the platform is still starting; try again in a while"
        return f"the platform answered with status {status}"


def _not_running(client: httpx.Client) -> CommandError:
    return CommandError(f"the platform is not running at {client.base_url}; start it with `manta run`")
