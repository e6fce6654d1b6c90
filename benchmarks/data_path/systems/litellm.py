"""LiteLLM's proxy, as its documentation sets it up for production and for its own benchmarks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import yaml

from benchmarks.data_path import peers
from benchmarks.data_path.contracts import Endpoint, Engine
from benchmarks.data_path.systems.program import StartError, running, temporary_folder, wait_for_chat
from serve_app.cluster import free_ports

START_TIMEOUT_S = 240.0
# https://docs.litellm.ai/docs/proxy/prod
ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",  # no .env is read
    "LITELLM_LOG": "ERROR",  # no line for every request
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # prices from the package, not from the internet
}


class LiteLLM:
    """No database, no cache, no callbacks, and of keys only the one that it refuses to start without."""

    name = "litellm"

    def __init__(self, *, num_workers: int = 2) -> None:
        self._num_workers = num_workers  # its benchmarks: "workers equal to CPU count gives optimal performance"

    @contextmanager
    def running(self, engine: Engine) -> Iterator[Endpoint]:
        """Start it in front of the engine; yield it once it answers."""
        program = peers.program("litellm")
        (port,) = free_ports(1)
        key = f"sk-{secrets.token_hex(16)}"
        folder = temporary_folder()
        config = folder / "config.yaml"
        config.write_text(render_config(engine.endpoint))
        command = [
            str(program),
            *("--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
            *("--num_workers", str(self._num_workers)),
        ]
        with running(command, env={**ENVIRONMENT, "LITELLM_MASTER_KEY": key}, folder=folder) as proxy:
            headers, pids = {"authorization": f"Bearer {key}"}, {"router": [proxy.pid]}
            endpoint = replace(engine.endpoint, host="127.0.0.1", port=port, headers=headers, pids=pids)
            try:
                wait_for_chat(endpoint, is_alive=proxy.is_alive, timeout_s=START_TIMEOUT_S)
            except StartError as err:
                raise StartError(f"litellm: {err}\n{proxy.log()}") from err
            yield endpoint


def render_config(engine: Endpoint) -> str:
    """Return the proxy's configuration for one engine with OpenAI's paths."""
    model = {
        # Its provider for vLLM's server; `openai/` would do the same through OpenAI's client library.
        "model": f"hosted_vllm/{engine.model}",
        "api_base": f"http://{engine.host}:{engine.port}/v1",
        "api_key": "none",
    }
    settings = {
        "model_list": [{"model_name": engine.model, "litellm_params": model}],
        # https://docs.litellm.ai/docs/benchmarks and https://docs.litellm.ai/docs/proxy/prod
        "litellm_settings": {"callbacks": [], "num_retries": 0, "request_timeout": 600, "set_verbose": False},
    }
    return yaml.safe_dump(settings)
