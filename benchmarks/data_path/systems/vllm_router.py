"""vllm-router (github.com/vllm-project/router): the vLLM project's load balancer, written in Rust."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.data_path import peers
from benchmarks.data_path.contracts import Endpoint, Engine
from benchmarks.data_path.systems.program import StartError, running, temporary_folder, wait_for_chat
from serve_app.cluster import free_ports

START_TIMEOUT_S = 120.0


class VllmRouter:
    """Its defaults, but round robin: with one engine there is no prefix to be aware of, and this policy costs least."""

    name = "vllm-router"

    @contextmanager
    def running(self, engine: Engine) -> Iterator[Endpoint]:
        """Start it in front of the engine; yield it once it answers."""
        program = peers.program("vllm-router")
        port, metrics_port = free_ports(2)
        command = [
            str(program),
            *("--worker-urls", f"http://{engine.endpoint.host}:{engine.endpoint.port}"),
            *("--policy", "round_robin"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port)),
            *("--worker-startup-check-interval", "1"),  # looked at on start only
            *("--log-level", "warning"),  # or it writes lines for every request
        ]
        with running(command, env={}, folder=temporary_folder()) as router:
            endpoint = replace(engine.endpoint, host="127.0.0.1", port=port, pids={"router": [router.pid]})
            try:
                wait_for_chat(endpoint, is_alive=router.is_alive, timeout_s=START_TIMEOUT_S)
            except StartError as err:
                raise StartError(f"vllm-router: {err}\n{router.log()}") from err
            yield endpoint
