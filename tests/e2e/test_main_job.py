"""The main job on real vLLM, real embeddings and real documents, used as its clients use it."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from serve_app.commands.demo import QUESTIONS
from tests.e2e.conftest import MainJob
from tests.e2e.metrics_port import metrics_port, scrape, total
from tests.e2e.replica_port import internal_token, replica_client, replica_process, replica_url, vllm_gauge, vllm_running

# The first test pays for the start: engine, documents and all.
pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.timeout(1800)]

SLOTS = 32  # engine.max_num_seqs of platform.yaml
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What does os.getcwd do?"}]


@pytest.fixture
def client(main_job: MainJob) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{main_job.url}/v1", api_key="none", timeout=300, max_retries=0) as made:
        yield made


def test_main_job_ingests_5000_chunks_and_answers_three_questions_with_citations(main_job: MainJob) -> None:
    output = main_job.output()
    [chunks] = {int(n) for n in re.findall(r"files, (\d+) chunks written", output)[-1:]}
    assert chunks >= 5_000
    for question in QUESTIONS:
        answer = output.partition(question)[2]
        assert re.search(r"\S+\s+\[1\] .* \(python-docs/\S+:\d+-\d+\)", answer), output[-4000:]


def test_openai_sdk_lists_models(client: openai.OpenAI) -> None:
    assert {card.id for card in client.models.list()} == {"chat", "docs-assistant", "minilm"}


def test_openai_sdk_streams_a_chat_from_the_model(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="chat", messages=HELLO, stream=True, max_tokens=12))
    assert "".join(c.choices[0].delta.content or "" for c in chunks)
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
    assert {c.model for c in chunks} == {"chat"}


def test_openai_sdk_gets_a_whole_completion(client: openai.OpenAI) -> None:
    completion = client.completions.create(model="chat", prompt="import os", max_tokens=4, extra_body={"ignore_eos": True})
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 4


def test_openai_sdk_streams_the_pipeline_with_citations_on_the_last_chunk(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="docs-assistant", messages=HELLO, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks)
    assert {c.model for c in chunks} == {"docs-assistant"}
    *_, last = [c for c in chunks if c.choices and c.choices[0].finish_reason]
    citations = last.model_extra["citations"] if last.model_extra else []
    assert [c["number"] for c in citations] == [1, 2, 3]
    assert any("getcwd" in c["text"] for c in citations)


def test_openai_sdk_gets_the_pipelines_whole_answer_with_citations(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="docs-assistant", messages=HELLO)
    assert answer.choices[0].message.content
    assert answer.model_extra is not None
    assert len(answer.model_extra["citations"]) == 3


def test_openai_sdk_embeds(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="minilm", input=["current directory", "working folder", "a red apple"])
    first, second, third = (item.embedding for item in answer.data)
    assert len(first) == 384
    assert dot(first, second) > dot(first, third)


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        pytest.param({"model": "nobody", "messages": HELLO}, 404, "model", id="unknown-model"),
        pytest.param({"model": "chat", "messages": HELLO, "max_tokens": -1}, 400, "max_tokens", id="negative-max-tokens"),
        pytest.param({"messages": HELLO}, 400, "model", id="no-model"),
    ],
)
def test_a_bad_request_names_its_field(main_job: MainJob, body: dict[str, object], status: int, param: str) -> None:
    answer = httpx.post(f"{main_job.url}/v1/chat/completions", json=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_malformed_json_is_a_400(main_job: MainJob) -> None:
    answer = httpx.post(f"{main_job.url}/v1/chat/completions", content=b'{"model": "chat",', timeout=60)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_body_of_20_mb_is_a_413(main_job: MainJob) -> None:
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "x" * 20_000_000}]})
    answer = httpx.post(f"{main_job.url}/v1/chat/completions", content=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_the_replicas_port_answers_401_without_the_internal_token(main_job: MainJob) -> None:
    assert main_job.process.poll() is None
    process = replica_process()
    url = replica_url(process)
    for path in ("/v1/models", "/v1/chat/completions", "/metrics", "/health"):
        assert httpx.post(f"{url}{path}", json={}).status_code == 401
        assert httpx.get(f"{url}{path}", headers={"authorization": "Bearer wrong"}).status_code == 401
    good = {"authorization": f"Bearer {internal_token(process)}"}
    assert httpx.get(f"{url}/v1/models", headers=good).status_code == 200


def test_a_client_that_leaves_mid_stream_aborts_its_request_inside_vllm(main_job: MainJob) -> None:
    with replica_client(replica_process()) as vllm:
        with socket.create_connection(("127.0.0.1", int(main_job.url.rpartition(":")[2]))) as connection:
            connection.sendall(endless_chat())
            received = b""
            while received.count(b"data: ") < 5:
                received += connection.recv(65_536)
            # vLLM publishes its counts a moment after the tokens that they are about.
            wait_until(lambda: vllm_running(vllm) == 1, within_s=10.0)
        wait_until(lambda: vllm_running(vllm) == 0, within_s=1.0)


def test_the_policy_sees_the_queue_that_vllm_sees(main_job: MainJob) -> None:
    with replica_client(replica_process()) as vllm:
        with ExitStack() as streams:
            for _ in range(3 * SLOTS):  # the first ones end after a minute, so an exact number would not stay
                connection = socket.create_connection(("127.0.0.1", int(main_job.url.rpartition(":")[2])))
                streams.enter_context(connection).sendall(endless_chat())
            seen: set[object] = set()

            def agree() -> bool:
                own = vllm_gauge(vllm, "num_requests_running"), vllm_gauge(vllm, "num_requests_waiting")
                told = decided(main_job)
                seen.add((own, told["running"], told["waiting"]))
                is_full = own[0] == told["slots"] == SLOTS and own[1] >= 10
                return is_full and own == (told["running"], told["waiting"])

            wait_until(agree, within_s=120.0, what=seen)
        wait_until(lambda: decided(main_job)["waiting"] == vllm_gauge(vllm, "num_requests_waiting") == 0, within_s=30.0)


def test_rays_metrics_port_shows_every_part_of_the_platform_and_the_engines_own_metrics(
    main_job: MainJob, client: openai.OpenAI
) -> None:
    chat = {"model": "chat", "variant": "stable"}
    own = {"model_name": "chat", **chat}
    at_least: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def wants(name: str, least: float, **labels: str) -> None:
        at_least[name, tuple(labels.items())] = least

    client.chat.completions.create(model="chat", messages=HELLO, max_tokens=4)
    wants("ray_manta_requests_total", 1, model="chat", outcome="ok")
    wants("ray_manta_request_seconds_bucket", 1, model="chat", le="+Inf")
    wants("ray_manta_replicas_count", 1, **chat, state="ready")
    for name in ("queue_depth_count", "running_requests_count", "kv_cache_usage_ratio"):
        wants(f"ray_manta_{name}", 0, **chat)
    wants("ray_manta_searches_total", len(QUESTIONS), outcome="hits")
    wants("ray_manta_search_seconds_count", len(QUESTIONS))
    wants("ray_manta_embedded_texts_total", 5_000, model="minilm")
    wants("ray_vllm_generation_tokens_total", 4, **own)
    wants("ray_vllm_time_to_first_token_seconds_bucket", 1, **own, le="+Inf")
    wants("ray_vllm_num_requests_running", 0, **own)
    port = metrics_port(main_job.process.pid)
    missing: list[object] = []

    def is_shown() -> bool:
        text = scrape(port)
        found = {key: total(text, key[0], **dict(key[1])) for key in at_least}
        missing[:] = [(key, value) for key, value in found.items() if value is None or value < at_least[key]]
        return not missing

    wait_until(is_shown, within_s=90.0, what=missing)


def decided(main_job: MainJob) -> dict[str, Any]:
    """Return what the policy goes by on the model's variant."""
    apps = httpx.get(f"{main_job.url}/admin/scaling", timeout=30).json()["apps"]
    decision: dict[str, Any] = next(app["decision"] for app in apps if app["name"] == "llm.chat.stable")
    return decision


def wait_until(condition: Callable[[], bool], *, within_s: float, what: object = "") -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not so after {within_s} s: {what}"
        time.sleep(0.05)


def endless_chat() -> bytes:
    body = {"model": "chat", "stream": True, "max_tokens": 1500, "ignore_eos": True, "messages": HELLO}
    raw = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


def test_manta_ask_prints_an_answer_with_citations(main_job: MainJob) -> None:
    done = main_job.manta("ask", QUESTIONS[0])
    assert (done.returncode, done.stderr) == (0, "")
    assert "[1] " in done.stdout


def test_manta_status_shows_apps_variants_and_weights(main_job: MainJob) -> None:
    done = main_job.manta("status")
    assert done.returncode == 0, done.stderr
    for word in ("llm.chat.stable", "stable", "100", "docs-assistant", "queue depth"):
        assert word in done.stdout


def test_ingesting_again_adds_nothing(main_job: MainJob) -> None:
    config = str(main_job.folder / "platform.yaml")
    arguments = ("--collection", "docs", "--config", config)
    (main_job.folder / "more").mkdir()
    (main_job.folder / "more" / "notes.md").write_text("# Notes\n\nThe moon is made of green cheese.\n", encoding="utf-8")
    first = main_job.manta("ingest", str(main_job.folder / "more"), *arguments)
    second = main_job.manta("ingest", str(main_job.folder / "more"), *arguments)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert counts(first.stderr) == ["1", "0", "0"]
    assert counts(second.stderr) == ["0", "0", "1"]


def counts(table: str) -> list[str]:
    """Return added, changed and unchanged of the summary's one row."""
    row = next(line for line in table.splitlines() if line.startswith("│"))
    return [cell.strip() for cell in row.strip("│").split("│")][:3]
