"""The platform that is broken: two of each part, on two worker nodes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

from serve_app.commands import ingest
from serve_app.config import PlatformConfig
from serve_app.ingest.command import IngestOptions
from tests.chaos.cluster import ChaosCluster

COLLECTION = "parts"
RATES = ("--chat", "92", "--whole", "3", "--question", "3", "--embed", "2")  # requests per second
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
    report = ingest.run(IngestOptions(texts, COLLECTION), PlatformConfig.model_validate(made), embedder=None, url=url)
    assert report.added == len(TEXTS)
    for each in cluster.urls():  # every proxy has heard of the Routers
        wait_answers(each)
    return made


def wait_answers(url: str, *, within_s: float = 60.0) -> None:
    """Wait until the pipeline answers through a proxy."""
    question = {"model": "assistant", "messages": [{"role": "user", "content": "What does the Router do?"}], "max_tokens": 2}
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            answer = httpx.post(f"{url}/v1/chat/completions", json=question, timeout=30)
            if answer.status_code == 200:
                return
            problem = answer.text
        except httpx.HTTPError as err:
            problem = repr(err)
        assert time.monotonic() < deadline_s, problem
        time.sleep(1.0)
