"""`helm test`: pods that run small scripts, and what those scripts find."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.chart.helm import CHART, Json, ci_values, files, objects, of_kind

pytestmark = pytest.mark.chart

FOLDER = CHART / "files" / "tests"
RAG, MINIMAL, KEYS = (
    ci_values(CHART / "ci" / f"{name}-values.yaml") for name in ("rag-full", "minimal-cpu", "keys-and-limits")
)
Handler = Callable[[httpx.Request], httpx.Response]
Scripts = Callable[..., ModuleType]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripts]:
    """Return what loads a script against a platform that answers by a handler."""
    client = load("client")

    def loaded(name: str, handler: Handler, **env: Any) -> ModuleType:
        monkeypatch.setitem(sys.modules, "client", client)
        http = httpx.Client(base_url="http://platform", transport=httpx.MockTransport(handler))
        monkeypatch.setattr(client, "until_ready", lambda: http)
        for key, value in env.items():
            monkeypatch.setenv(key, json.dumps(value))
        return load(name)

    yield loaded
    sys.modules.pop("client", None)


def pods(values: Json | None = None) -> dict[str, Json]:
    return {pod["metadata"]["name"].removeprefix("demo-manta-test-"): pod for pod in of_kind("Pod", values)}


def test_there_is_a_test_for_what_the_platform_has() -> None:
    assert list(pods()) == ["chat", "stream", "weights", "grpc-api"]
    assert list(pods(RAG)) == ["chat", "stream", "weights", "rag", "grpc-api"]
    assert list(pods(MINIMAL)) == ["chat", "stream", "weights"]
    assert pods({"tests": {"enabled": False}}) == {}


def test_each_pod_runs_a_script_that_is_there() -> None:
    (scripts,) = [each for each in of_kind("ConfigMap") if each["metadata"]["name"] == "demo-manta-test-scripts"]
    for pod in pods(RAG).values():
        command = pod["spec"]["containers"][0]["command"]
        assert command[0] == "python"
        assert command[1].removeprefix("/tests/") in scripts["data"]
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert {"name": "tests", "configMap": {"name": scripts["metadata"]["name"]}} in pod["spec"]["volumes"]


def test_scripts_are_a_part_of_the_release_so_that_they_go_with_it() -> None:
    # Helm never deletes a hook at `helm uninstall`.
    hooks = [each for each in objects(RAG) if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    assert {each["kind"] for each in hooks} == {"Pod"}
    assert {each["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for each in hooks} == {
        "before-hook-creation,hook-succeeded"
    }


INCREMENTAL: Json = {"upgrade": {"type": "NewClusterWithIncrementalUpgrade", "incremental": {"gatewayClassName": "istio"}}}


def env(pod: Json) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}


def test_an_incremental_upgrade_is_tested_by_its_gateway_and_not_over_grpc() -> None:
    found = pods(INCREMENTAL)
    assert list(found) == ["chat", "stream", "weights"]
    assert env(found["chat"])["MANTA_URL"] == "http://demo-manta-gateway-istio"


def test_the_address_of_the_tests_may_be_another() -> None:
    values = {**INCREMENTAL, "tests": {"url": "http://envoy-ml.gateways"}}
    assert {env(pod)["MANTA_URL"] for pod in pods(values).values()} == {"http://envoy-ml.gateways"}


def notes(values: Json | None = None) -> str:
    return files(values)["NOTES.txt"]


def test_notes_wait_for_the_platform_before_they_test_it() -> None:
    words = "kubectl -n ml wait --for=condition=Ready rayservice/demo-manta --timeout=30m"
    before, _, after = notes().partition(words)
    assert "helm -n ml test" not in before
    assert "helm -n ml test demo --logs --timeout 360s" in after  # a minute over what a test may take
    assert "--timeout 960s" in notes({"tests": {"timeoutSeconds": 900}})
    assert "helm -n ml test" not in notes({"tests": {"enabled": False}})


def test_notes_name_the_gateway_that_an_incremental_upgrade_goes_by() -> None:
    text = notes(INCREMENTAL)
    for words in (
        'Gateway "demo-manta-gateway"',
        'HTTPRoute "demo-manta-httproute"',
        "service/demo-manta-gateway-istio 8000:80",
        "no gRPC",
    ):
        assert words in text
    assert "serve-svc" not in text


def test_tests_know_the_platform_as_it_is_declared() -> None:
    found = {
        each["name"]: each.get("value", each.get("valueFrom")) for each in pods(RAG)["rag"]["spec"]["containers"][0]["env"]
    }
    assert (found["MANTA_URL"], found["MANTA_GRPC"]) == ("http://demo-manta-serve-svc:8000", "demo-manta-serve-svc:9000")
    assert json.loads(found["MANTA_TEST_WEIGHTS"]) == {
        "chat": {"stable": 100},
        "docs-assistant": {"v1": 80, "v2": 20},
        "handbook": {"v1": 100},
    }
    assert json.loads(found["MANTA_TEST_PIPELINES"]) == ["docs-assistant", "handbook"]
    assert found["MANTA_API_KEY"] == {"secretKeyRef": {"name": "manta-test-key", "key": "key"}}


def test_a_platform_without_keys_is_tested_without_one() -> None:
    values = {"platform": {"auth": {"keys_file": None, "allow_anonymous": True}}}
    (env,) = {str(pod["spec"]["containers"][0]["env"]) for pod in pods(values).values()}
    assert "MANTA_API_KEY" not in env


def answers(status: int, body: Any) -> Handler:
    return lambda request: httpx.Response(status, json=body)


def test_a_model_that_answers_passes(script: Scripts, capsys: pytest.CaptureFixture[str]) -> None:
    chat = script("chat", answers(200, {"usage": {"completion_tokens": 3}}), MANTA_TEST_MODELS=["chat", "tiny"])
    chat.main()
    assert capsys.readouterr().out == "passed: chat answered\npassed: tiny answered\n"


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (answers(503, {"error": {"message": "no replica"}}), "chat: 503"),
        (answers(200, {"usage": {"completion_tokens": 0}}), "chat generated nothing"),
    ],
    ids=["refused", "empty"],
)
def test_a_model_that_does_not_answer_fails(script: Scripts, handler: Handler, message: str) -> None:
    with pytest.raises(SystemExit, match=f"FAILED: {message}"):
        script("chat", handler, MANTA_TEST_MODELS=["chat"]).main()


@pytest.mark.parametrize(
    ("text", "is_whole"), [("data: {}\n\ndata: [DONE]\n\n", True), ("data: {}\n\n", False)], ids=["whole", "cut"]
)
def test_a_stream_must_end(script: Scripts, text: str, is_whole: bool) -> None:
    stream = script("stream", lambda request: httpx.Response(200, text=text), MANTA_TEST_MODELS=["chat"])
    if is_whole:
        stream.main()
    else:
        with pytest.raises(SystemExit, match="the stream was cut"):
            stream.main()


@pytest.mark.parametrize(("status", "is_fine"), [(200, True), (409, True), (503, False)], ids=["answer", "empty", "down"])
def test_a_pipeline_answers_or_has_nothing_yet(script: Scripts, status: int, is_fine: bool) -> None:
    rag = script("rag", answers(status, {"choices": [{}]}), MANTA_TEST_PIPELINES=["docs"])
    if is_fine:
        rag.main()
    else:
        with pytest.raises(SystemExit, match="docs: 503"):
            rag.main()


def report(**changes: Any) -> Json:
    split = {"name": "chat", "weights": {"stable": 75, "canary": 25}, "declared_weights": {"stable": 90, "canary": 10}}
    return {"refused": None, "table": {"version": 4}, "routers": {"a": 4, "b": 4}, "splits": [split], **changes}


DECLARED = {"chat": {"stable": 90, "canary": 10}, "tiny": {"stable": 100}}


def test_weights_are_those_that_are_declared_however_far_a_rollout_is(script: Scripts) -> None:
    script("weights", answers(200, report()), MANTA_TEST_WEIGHTS=DECLARED).main()


@pytest.mark.parametrize(
    ("changes", "wanted", "message"),
    [
        ({"refused": "weights must sum to 100"}, DECLARED, "weights must sum to 100"),
        ({"routers": {"a": 3, "b": 4}}, DECLARED, "1 Routers have an older table"),
        ({}, {"chat": {"stable": 80, "canary": 20}}, "chat is split .*'stable': 90.*, declared is .*'stable': 80"),
    ],
    ids=["refused", "behind", "other"],
)
def test_weights_that_never_come_fail(script: Scripts, changes: Json, wanted: Json, message: str) -> None:
    weights = script("weights", answers(200, report(**changes)), MANTA_TEST_WEIGHTS=wanted)
    ticks = iter([0.0, 1.0, 1e9])
    with pytest.raises(SystemExit, match=message):
        weights.main(clock=lambda: next(ticks), sleep=lambda seconds: None)


def test_a_platform_that_has_just_started_is_waited_for() -> None:
    client = load("client")
    seen: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(1)
        if len(seen) == 1:
            raise httpx.ConnectError("not yet")
        return httpx.Response(503 if len(seen) == 2 else 200)

    def opened(**options: Any) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(handler), **options)

    client.until_ready(opened, clock=lambda: 0.0, sleep=lambda seconds: None)
    assert len(seen) == 3


def test_a_key_that_is_refused_is_not_tried_again() -> None:
    client = load("client")
    transport = httpx.MockTransport(lambda request: httpx.Response(401, text="no such key"))
    with pytest.raises(SystemExit, match="key is not accepted: no such key"):
        client.until_ready(lambda **options: httpx.Client(transport=transport, **options))


class FakePlatform:
    """A gRPC client whose model streams ``pieces``."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces

    def __call__(self, target: str, **options: Any) -> FakePlatform:
        assert target == "host:9000"
        return self

    async def __aenter__(self) -> FakePlatform:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def list_models(self) -> list[Any]:
        return [type("Model", (), {"id": "chat"})]

    async def chat(self, model: str, messages: Any, *, sampling: Any) -> Any:
        assert (messages[0].role, sampling.max_tokens) == ("user", 8)
        for piece in range(self._pieces):
            yield piece


@pytest.mark.parametrize(
    ("model", "pieces", "message"),
    [("chat", 3, ""), ("chat", 0, "streamed nothing"), ("gpt", 3, "gpt is not among")],
    ids=["streams", "silent", "unknown"],
)
async def test_grpc_has_every_model(script: Scripts, model: str, pieces: int, message: str) -> None:
    check = script("grpc_api", answers(200, {})).check
    if not message:
        await check("host:9000", [model], FakePlatform(pieces))
        return
    with pytest.raises(SystemExit, match=message):
        await check("host:9000", [model], FakePlatform(pieces))
