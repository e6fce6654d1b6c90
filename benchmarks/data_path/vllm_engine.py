"""Real vLLM on this machine's CPU, as its own OpenAI server: the engine that every system stands in front of."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.data_path.contracts import Endpoint, Engine
from serve_app.cluster import free_ports

MODEL_FOLDER = Path(__file__).resolve().parents[2] / "models" / "demo" / "model"
MODEL = "demo"
ARGS: Mapping[str, object] = {"dtype": "bfloat16", "enforce_eager": True, "max_model_len": 2048, "max_num_seqs": 128}
START_TIMEOUT_S = 1800.0
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENGINE_READY_TIMEOUT_S": str(int(START_TIMEOUT_S)),
    "VLLM_NO_USAGE_STATS": "1",
    # Idle or not, the engine's threads keep their cores busy. It gets half of them: what stands in front of it would
    # otherwise be measured on a machine that is full at one request.
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{max(1, (os.cpu_count() or 1) // 2) - 1}",
}


@contextmanager
def vllm_engine(args: Mapping[str, object] = ARGS, *, env: Mapping[str, str] | None = None) -> Iterator[Engine]:
    """Start vLLM's server on the demo model; yield once it has answered a chat.

    Raises:
        TimeoutError: it does not answer within half an hour.
        RuntimeError: it ended; the message holds its last words.
    """
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(MODEL_FOLDER)]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), *flags(args)]
    command += ["--disable-uvicorn-access-log"]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **ENVIRONMENT, **(env or {})})  # noqa: S603
        try:
            _wait(server, f"http://127.0.0.1:{port}")
            endpoint = Endpoint("127.0.0.1", port, MODEL, pids={"engine": [server.pid]})
            yield Engine("vllm", endpoint, model_folder=MODEL_FOLDER, vllm_args=dict(args))
        except RuntimeError as err:
            log.seek(0)
            raise RuntimeError(f"{err}:\n{log.read().decode(errors='replace')[-2000:]}") from err
        finally:
            server.terminate()
            try:
                server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()


def flags(args: Mapping[str, object]) -> list[str]:
    """Return engine arguments by their Python names as vLLM's command-line options."""
    given: list[str] = []
    for name, value in args.items():
        option = "--" + name.replace("_", "-")
        given += [option] if value is True else [] if value is False else [option, str(value)]
    return given


def _wait(server: subprocess.Popen[bytes], url: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            raise RuntimeError(f"vLLM ended with code {server.returncode} while starting")
        try:
            if httpx.post(f"{url}/v1/chat/completions", json=body, timeout=300).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(1.0)
    raise TimeoutError(f"vLLM did not answer within {START_TIMEOUT_S:.0f} s")
