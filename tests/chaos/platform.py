"""The platform that is broken: two of each part, on two worker nodes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from serve_app.commands import ingest
from serve_app.config import ApiKeyConfig, PlatformConfig
from serve_app.credentials import hash_of
from serve_app.ingest.command import IngestOptions
from tests.chaos.cluster import ChaosCluster

COLLECTION = "parts"
RATES = ("--chat", "92", "--whole", "3", "--question", "3", "--embed", "2")  # requests per second
# Of `small`: eight answers of 0.8 s at a time in each of two replicas.
SLOTS, TOKENS, TOKEN_S = 8, 16, 0.05
TEXTS = {
    "router.md": "# Router\n\nThe Router relays the bytes of an answer from a replica to its client.\n",
    "rollouts.md": "# Rollouts\n\nRollouts keeps the traffic table and the directory of replicas.\n",
}


def config(store: Path) -> dict[str, Any]:
    """Return the configuration: a simulated model, real embeddings, a pipeline over both."""
    latency = {"decode_s_per_token": 0.02, "slots": 400}
    variant = {
        "name": "stable",
        "source": "simulated",
        "cpus": 0.1,
        "replicas": 2,
        "drain_timeout_s": 30,
        "engine": {"kind": "simulated", "simulated": latency},
    }
    version = {"name": "v1", "embedder": "minilm", "collection": COLLECTION, "top_k": 1, "model": "chat"}
    version["prompt"] = "{% for hit in hits %}{{ hit.text }}\n{% endfor %}{{ question }}"
    return {
        "models": [{"name": "chat", "variants": [variant]}],
        "embedders": [{"name": "minilm", "source": "sentence-transformers/all-MiniLM-L6-v2", "replicas": 2}],
        "pipelines": [{"name": "assistant", "versions": [version]}],
        "vector_store": {"uri": str(store)},
        "retriever": {"replicas": 2, "cpus": 0.1},
        "router": {"replicas": 2, "cpus": 0.2, "drain_timeout_s": 30},
        "auth": {"allow_anonymous": True},
    }


def updated(before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration that every app is another version by."""
    made = copy.deepcopy(dict(before))
    made["models"][0]["variants"][0]["cpus"] += 0.01
    made["router"]["cpus"] += 0.01
    made["retriever"]["cpus"] += 0.01
    [embedder] = made["embedders"]
    embedder["max_batch_size"] = embedder.get("max_batch_size", 32) - 1
    made["rollouts"] = {"state_uri": f"{made['vector_store']['uri']}-rollouts-{made['router']['cpus']:.2f}"}
    return made


def small(before: Mapping[str, Any], keys: Mapping[int, str]) -> dict[str, Any]:
    """Return a configuration with few places for answers, and a key for each priority."""
    made = copy.deepcopy(dict(before))
    engine = {"kind": "simulated", "simulated": {"decode_s_per_token": TOKEN_S, "slots": SLOTS}}
    # Two Routers share the places of a replica.
    made["models"][0]["variants"][0] |= {"max_leases": SLOTS // 2, "engine": engine}
    made["limits"] = {"max_expected_wait_s": 1.5}
    made["auth"] = {"keys": [_key(priority, key) for priority, key in keys.items()]}
    return made


def _key(priority: int, key: str) -> dict[str, Any]:
    made = ApiKeyConfig.model_validate({"name": key.split("_")[1], "hash": hash_of(key), "priority": priority})
    return made.model_dump(mode="json", exclude_defaults=True)


def prepare(cluster: ChaosCluster, folder: Path) -> dict[str, Any]:
    """Deploy, wait until it runs, fill the collection, and return the configuration."""
    made = config(folder / "lance")
    cluster.deploy(made)
    cluster.wait_running()
    texts = folder / "texts"
    texts.mkdir()
    for name, text in TEXTS.items():
        (texts / name).write_text(text, encoding="utf-8")
    url = cluster.urls()[0]
    _wait(lambda: httpx.get(f"{url}/v1/models", timeout=30))  # Serve calls it running before its proxies listen
    report = ingest.run(IngestOptions(texts, COLLECTION), PlatformConfig.model_validate(made), embedder=None, url=url)
    assert report.added == len(TEXTS)
    for each in cluster.urls():  # every proxy has heard of the Routers
        wait_answers(each)
    return made


def wait_answers(url: str) -> None:
    """Wait until the pipeline answers through a proxy."""
    question = {"model": "assistant", "messages": [{"role": "user", "content": "What does the Router do?"}], "max_tokens": 2}
    _wait(lambda: httpx.post(f"{url}/v1/chat/completions", json=question, timeout=30))


def _wait(ask: Callable[[], httpx.Response], *, within_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            answer = ask()
            if answer.status_code == 200:
                return
            problem = answer.text
        except httpx.HTTPError as err:
            problem = repr(err)
        assert time.monotonic() < deadline_s, problem
        time.sleep(1.0)
