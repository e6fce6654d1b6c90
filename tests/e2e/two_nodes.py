"""A platform on real vLLM over one or two Ray nodes of this machine, for engines that span them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

from serve_app.apps import build_schema, cpus_needed
from serve_app.cluster import ROOT, LocalCluster, free_ports
from serve_app.config import PlatformConfig

MODEL = ROOT / "models" / "demo" / "model"
START_TIMEOUT_S = 900.0
NODE_CPUS = 2
NODE_TRIES = 3
NODE_TIMEOUT_S = 90.0


class EnginePlatform:
    """A platform whose cluster may have a second node; then each of them has room for ``NODE_CPUS``, and for what is small."""

    def __init__(self, config: dict[str, Any], *, has_two_nodes: bool = False, env: Mapping[str, str] | None = None) -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._schema = self.schema(config)
        self._has_two_nodes = has_two_nodes
        self.cluster = LocalCluster(num_cpus=NODE_CPUS if has_two_nodes else cpus_needed(self._schema) + 1, env=env)
        self._second: subprocess.Popen[bytes] | None = None

    def schema(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return what Serve gets for a configuration of this platform."""
        made = build_schema(PlatformConfig.model_validate(config), http_port=self.port, http_host="127.0.0.1", grpc_port=None)
        # Both nodes share this machine's ports, so one proxy must do.
        return {**made, "proxy_location": "HeadOnly"}

    def __enter__(self) -> EnginePlatform:
        self.cluster.start()
        try:
            if self._has_two_nodes:
                self._add_node()
            self.cluster.deploy(self._schema)
            self._wait({app["name"] for app in self._schema["applications"]})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end_node()
        self.cluster.stop()

    def _add_node(self) -> None:
        for _ in range(NODE_TRIES):
            folder = tempfile.mkdtemp(prefix="mn-", dir="/tmp")
            self._second = subprocess.Popen(
                [sys.executable, "-m", "serve_app.watchdog", folder, *self.cluster.join_command(NODE_CPUS + 1)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self.cluster.environment,
                cwd=ROOT,
                start_new_session=True,
            )
            deadline_s = time.monotonic() + NODE_TIMEOUT_S
            while self._second.poll() is None and time.monotonic() < deadline_s:
                if len(self.cluster.nodes()) == 2:
                    return
                time.sleep(1.0)
            self._end_node()  # a port that was free a moment ago may be taken
        raise AssertionError("the second node did not join")

    def _end_node(self) -> None:
        if self._second is not None and self._second.stdin is not None:
            self._second.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._second.wait(timeout=60)

    def _wait(self, names: set[str]) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            found = self.cluster.applications()
            states = {name: app["status"] for name, app in found.items()}
            failed = {name: found[name]["deployments"] for name, state in states.items() if state == "DEPLOY_FAILED"}
            assert not failed, failed
            if names <= {name for name, state in states.items() if state == "RUNNING"}:
                return
            assert time.monotonic() < deadline_s, f"not running after {START_TIMEOUT_S} s: {states}"
            time.sleep(1.0)

    def replicas(self, model: str) -> list[dict[str, Any]]:
        """Return the lines of the status report on a model's replicas."""
        report = httpx.get(f"{self.url}/admin/status", timeout=60).json()
        [found] = [each for each in report["models"] if each["name"] == model]
        return [replica for variant in found["variants"] for replica in variant["replicas_detail"]]

    def complete(self, model: str, prompts: list[str], *, max_tokens: int) -> list[list[int]]:
        """Return the greedy tokens of every prompt, asked for at once."""

        def ask(prompt: str) -> list[int]:
            body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "return_token_ids": True}
            # Without the penalty a small model says one word again and again.
            body |= {"ignore_eos": True, "repetition_penalty": 1.3}
            answer = httpx.post(f"{self.url}/v1/completions", json=body, timeout=900)
            assert answer.status_code == 200, answer.text
            tokens: list[int] = answer.json()["choices"][0]["token_ids"]
            return tokens

        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(ask, prompts))


def engine_processes(root: psutil.Process | None = None) -> list[psutil.Process]:
    """Return every process of a vLLM engine on this machine: schedulers and ranks."""
    found = root.children(recursive=True) if root is not None else list(psutil.process_iter())
    return [process for process in found if _title(process).startswith("VLLM::")]


def ranks() -> list[psutil.Process]:
    """Return the processes that hold a part of a model."""
    return [process for process in engine_processes() if "Worker" in _title(process)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextlib.contextmanager
def engine_platform(
    shape: dict[str, Any], *, replicas: int = 1, has_two_nodes: bool = False, model: Mapping[str, Any] | None = None
) -> Iterator[EnginePlatform]:
    """Run the demo model as ``chat`` in an engine of this shape; float32, so that sums in another order choose alike.

    On two nodes a stage takes all of a node's CPUs, so that no node holds two. ``model``: more options of the model.
    """
    engine = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "max_num_seqs": 32, **shape}
    ranks_of_stage = shape.get("tensor_parallel_size", 1)
    variant = {
        "name": "stable",
        "source": str(MODEL),
        "engine": engine,
        "replicas": replicas,
        "drain_timeout_s": 30,
        "cpus": NODE_CPUS / ranks_of_stage if has_two_nodes else 1,
    }
    chat = {"name": "chat", "variants": [variant], **(model or {})}
    config = {"models": [chat], "router": {"replicas": 1, "cpus": 0.1, "grpc": False}}
    # Ranks of a stage wait for each other without sleeping, so each needs a core; the others are placed as they come.
    bind = "0|1" if ranks_of_stage == 2 else "nobind"
    with EnginePlatform(config, has_two_nodes=has_two_nodes, env={"VLLM_CPU_OMP_THREADS_BIND": bind}) as platform:
        yield platform


def log_folder(platform: EnginePlatform) -> Path:
    """Return where the cluster's processes write their logs."""
    return platform.cluster.folder / "ray" / "session_latest" / "logs"
