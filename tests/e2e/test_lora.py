"""LoRA adapters on real vLLM: two of the demo model, one of them in S3, on a replica with room for one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import yaml
from moto.server import ThreadedMotoServer

from serve_app.cluster import free_ports
from tests.e2e.clients.platform import ROOT, STOP_TIMEOUT_S, wait_until_up
from tests.e2e.lora import write_adapter

MODEL = ROOT / "models/demo/model"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
NAMES = ("chat", "chat:first", "chat:second")
ROUNDS = 8

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.timeout(2400)]


@dataclass(frozen=True)
class Adapted:
    """A running platform."""

    url: str
    log: Path

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=600)

    def said(self, model: str, question: str = "Say hello.", **more: Any) -> tuple[str, str]:
        """Return the model that an answer names, and its text."""
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 12, "ignore_eos": True}
        answer = self.post("/v1/chat/completions", model=model, **body, **more)
        assert answer.status_code == 200, answer.text
        document = answer.json()
        return document["model"], document["choices"][0]["message"]["content"]

    def loaded(self) -> dict[str, int]:
        """Return how many replicas have each adapter."""
        [chat] = httpx.get(f"{self.url}/admin/status", timeout=60).json()["models"]
        return {adapter["name"]: adapter["versions"][0]["loaded_replicas"] for adapter in chat["adapters"]}


def begun(texts: Iterable[str]) -> list[str]:
    """Return how texts begin: in another batch sums round otherwise, and nonsense may go on in another way."""
    return [text[:3] for text in texts]


@contextlib.contextmanager
def bucket_with(adapter: Path) -> Iterator[str]:
    """Serve a bucket that holds an adapter, and return its endpoint."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        secrets = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=endpoint, **secrets)
        client.create_bucket(Bucket="adapters")
        for file in adapter.iterdir():
            client.upload_file(str(file), "adapters", f"second/{file.name}")
        yield endpoint
    finally:
        server.stop()


def configuration(first: Path) -> dict[str, Any]:
    lora = {"max_loras": 1, "max_rank": 8, "max_loaded": 1}
    engine = {"max_model_len": 1024, "enforce_eager": True, "dtype": "bfloat16", "cpu_kv_cache_gib": 1, "lora": lora}
    adapters = [{"name": "first", "source": str(first)}, {"name": "second", "source": "s3://adapters/second"}]
    variants = [{"name": "stable", "source": str(MODEL), "engine": engine}]
    return {
        "models": [{"name": "chat", "variants": variants, "adapters": adapters}],
        "router": {"replicas": 1, "cpus": 0.5},
    }


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapted]:
    folder = tmp_path_factory.mktemp("lora")
    first = write_adapter(folder / "first", MODEL, seed=1)
    with bucket_with(write_adapter(folder / "second", MODEL, seed=2)) as endpoint:
        (folder / "platform.yaml").write_text(yaml.safe_dump(configuration(first)), encoding="utf-8")
        port, grpc = free_ports(2)
        command = [sys.executable, "-m", "serve_app.cli", "run", str(folder / "platform.yaml"), "--port", str(port)]
        environment = {"AWS_ENDPOINT_URL": endpoint, "MANTA_CACHE": str(folder / "cache"), "COLUMNS": "200"}
        with (folder / "run.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--grpc-port", str(grpc)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, **CREDENTIALS, **environment},
            )
        try:
            wait_until_up(process, folder / "run.log")
            yield Adapted(f"http://127.0.0.1:{port}", folder / "run.log")
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_models_lists_the_adapters(adapted: Adapted) -> None:
    cards = httpx.get(f"{adapted.url}/v1/models", timeout=60).json()["data"]
    assert [(card["id"], card.get("parent")) for card in cards] == [(NAMES[0], None), (NAMES[1], "chat"), (NAMES[2], "chat")]


def test_the_model_and_each_adapter_answer_otherwise_and_by_their_own_names(adapted: Adapted) -> None:
    answers = {name: adapted.said(name) for name in NAMES}
    assert {name: model for name, (model, _) in answers.items()} == {name: name for name in NAMES}
    assert len({text for _, text in answers.values()}) == 3


def test_an_adapter_that_made_room_and_came_back_answers_as_before(adapted: Adapted) -> None:
    before = [adapted.said(name)[1] for name in NAMES]
    assert [adapted.said(name)[1] for name in NAMES] == before
    deadline_s = time.monotonic() + 30
    while adapted.loaded() != {"chat:first": 0, "chat:second": 1}:
        assert time.monotonic() < deadline_s, adapted.loaded()
        time.sleep(0.5)


def test_prompts_that_start_alike_share_no_cache_between_adapters(adapted: Adapted) -> None:
    question = "Say hello. " * 100  # many blocks of the KV cache
    first = {name: adapted.said(name, question)[1] for name in NAMES}
    again = {name: adapted.said(name, question)[1] for name in reversed(NAMES)}
    assert begun(again.values()) == begun(reversed(first.values()))
    assert len(set(begun(first.values()))) == 3


def test_under_load_adapters_take_turns_without_an_error(adapted: Adapted) -> None:
    with ThreadPoolExecutor(max_workers=2 * len(NAMES)) as pool:
        answers = list(pool.map(adapted.said, NAMES * ROUNDS))
    assert [model for model, _ in answers] == list(NAMES * ROUNDS)
    texts = {name: set(begun(text for model, text in answers if model == name)) for name in NAMES}
    assert not (texts["chat"] & texts["chat:first"] | texts["chat:first"] & texts["chat:second"])


@pytest.mark.parametrize("name", NAMES)
def test_streams_name_what_was_asked_for(adapted: Adapted, name: str) -> None:
    body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4, "stream": True}
    answer = adapted.post("/v1/chat/completions", model=name, **body)
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    assert {json.loads(event)["model"] for event in events} == {name}
    assert answer.headers["x-manta-model"] == name


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "Say hello.", "max_tokens": 4}),
        ("/v1/responses", {"input": "Say hello.", "max_output_tokens": 4}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}),
    ],
)
def test_every_way_of_asking_names_the_adapter(adapted: Adapted, path: str, body: dict[str, Any]) -> None:
    answer = adapted.post(path, model="chat:second", **body)
    assert (answer.status_code, answer.json()["model"]) == (200, "chat:second"), answer.text


def test_tokens_are_counted_for_an_adapter(adapted: Adapted) -> None:
    assert adapted.post("/tokenize", model="chat:first", prompt="Say hello.").json()["count"] > 0


def test_an_adapter_that_there_is_not_is_an_unknown_model(adapted: Adapted) -> None:
    answer = adapted.post("/v1/chat/completions", model="chat:third", messages=[{"role": "user", "content": "Hi."}])
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
