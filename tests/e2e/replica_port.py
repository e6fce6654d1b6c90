"""Finds the guarded port of the real LLM replica on this machine."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil


def replica_process() -> psutil.Process:
    """Return the process of the LLM replica."""
    for process in psutil.process_iter(["cmdline"]):
        if any("llm.chat.stable:LLM" in part for part in process.info["cmdline"] or ()):
            return process
    raise AssertionError("no LLM replica runs here")


def replica_url(process: psutil.Process) -> str:
    """Return the URL of the one port of the process that asks for the internal token."""
    for connection in process.net_connections(kind="tcp"):
        # Ray's own ports of the process are IPv6 ones, or speak no HTTP.
        if connection.status == psutil.CONN_LISTEN and connection.family == socket.AF_INET:
            url = f"http://{connection.laddr.ip}:{connection.laddr.port}"
            try:
                if httpx.get(f"{url}/health", timeout=2).status_code == 401:
                    return url
            except httpx.HTTPError:
                continue
    raise AssertionError("the LLM replica has no guarded port")


def internal_token(process: psutil.Process) -> str:
    """Return the token that the cluster was started with."""
    return str(process.environ()["MANTA_INTERNAL_TOKEN"])


@contextmanager
def replica_client(process: psutil.Process) -> Iterator[httpx.Client]:
    """Yield a client of the replica's port that is ready to send.

    Made beforehand: on a machine whose cores an engine keeps busy, a new client (its TLS settings are read from files)
    may take seconds, and a stream of hundreds of tokens per second is over by then.
    """
    headers = {"authorization": f"Bearer {internal_token(process)}"}
    with httpx.Client(base_url=replica_url(process), headers=headers, timeout=20) as client:
        client.get("/health")
        yield client


def vllm_running(client: httpx.Client) -> float:
    """Return vLLM's own count of running requests."""
    return vllm_gauge(client, "num_requests_running")


def vllm_gauge(client: httpx.Client, name: str) -> float:
    """Return the present value of one of vLLM's own gauges."""
    text = client.get("/metrics").text
    found = re.search(rf"^vllm:{name}\{{.*\}} (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found.group(1))
