"""The attacker's view of a running platform: its HTTP and gRPC fronts and every other port that it opens.

The model that all attempts ask for is so slow that whatever reaches it is still there at the end.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import httpx
import psutil
import pytest
import pytest_asyncio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from serve_app.credentials import hash_of, new_key
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2
from tests.integration.attacks import CHAT, JSON, Attack, attacks, message, statuses, talk
from tests.integration.platform import Platform, simulated
from tests.integration.test_traffic import processes
from tests.leaks import leaks_in

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

KEYS = {name: new_key(name) for name in ("ops", "ann", "old")}
CONFIG: dict[str, Any] = {
    "models": [
        {"name": "chat", "variants": [simulated()]},
        {"name": "vault", "variants": [simulated(latency={"decode_s_per_token": 60}, drain_timeout_s=1)]},
    ],
    "router": {"replicas": 1, "cpus": 0.1},
    "auth": {
        "keys": [
            {"name": "ops", "hash": hash_of(KEYS["ops"]), "admin": True},
            {"name": "ann", "hash": hash_of(KEYS["ann"]), "models": ["chat"]},
            {"name": "old", "hash": hash_of(KEYS["old"]), "expires_at": "2020-01-01T00:00:00Z"},
        ]
    },
}
BODY = json.dumps({"model": "vault", "messages": [{"role": "user", "content": "hi"}]}).encode()
ANN = f"Authorization: Bearer {KEYS['ann']}".encode()
ATTACKS = attacks(BODY, right=ANN)
CLOSE = b"Connection: close"
ORDERS = (  # what Ray's own HTTP servers do for whoever they trust, and what Serve calls a deployment by
    b"POST /api/jobs/ HTTP/1.1",
    b"POST /api/job_agent/jobs/ HTTP/1.1",
    b"PUT /api/serve/applications/ HTTP/1.1",
    b"DELETE /api/serve/applications/ HTTP/1.1",
    b"POST /get_or_create_runtime_env HTTP/1.1",
    b"POST / HTTP/1.1",
)
RIGHT = ("authorization", f"Bearer {KEYS['ann']}")
OPS = ("authorization", f"Bearer {KEYS['ops']}")
SERVICE = "/manta.v1.Inference/"
VAULT = chat_pb2.ChatRequest(
    model="vault", messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="hi")])]
)


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}"}


def ask(platform: Platform, name: str, model: str = "chat", **more: Any) -> httpx.Response:
    body = {**json.loads(BODY), "model": model, "max_tokens": 2}
    return httpx.post(f"{platform.url}/v1/chat/completions", json=body, headers=bearer(name), **{"timeout": 60, **more})


def seen_by_the_vault(platform: Platform) -> int:
    """Return how many requests have reached the slow model."""
    report = httpx.get(f"{platform.url}/admin/status", headers=bearer("ops"), timeout=30).json()
    line = next(v for m in report["models"] if m["name"] == "vault" for v in m["variants"])
    return int(line["running"] + line["queue_depth"] + line["open_requests"])


@pytest.fixture(scope="module")
def locked(bare_platform: Platform) -> Platform:
    """The platform with keys, in force in its Router."""
    bare_platform.deploy(CONFIG)
    deadline_s = time.monotonic() + 60
    while (found := [ask(bare_platform, name).status_code for name in ("ann", "old")]) != [200, 401]:
        assert time.monotonic() < deadline_s, found
        time.sleep(0.5)
    return bare_platform


@pytest.fixture(scope="module")
def attacked(locked: Platform) -> dict[str, bytes]:
    """What came back from every attack."""
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda attack: talk(locked.port, attack.sent), ATTACKS)
        return dict(zip((attack.name for attack in ATTACKS), answers, strict=True))


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_an_attack_over_a_socket_is_refused_and_shows_nothing(attack: Attack, attacked: dict[str, bytes]) -> None:
    answer = attacked[attack.name]
    found = statuses(answer)
    assert found.count(200) <= attack.served, answer
    assert [status for status in found if status != 200 and not 400 <= status < 500 and status != 505] == [], answer
    shown = [line for line in answer.decode("latin-1").splitlines() if not line.lower().startswith("server:")]
    assert leaks_in("\n".join(shown)) == []
    assert b"x-evil" not in answer.lower()


def test_those_who_come_after_the_attacks_get_their_own_answers(locked: Platform, attacked: dict[str, bytes]) -> None:
    assert attacked
    with httpx.Client(base_url=locked.url, headers=bearer("ann"), timeout=60) as client:
        for i in range(20):
            answer = client.get("/v1/models", headers={"x-request-id": f"mine-{i}"})
            assert (answer.status_code, answer.headers["x-request-id"]) == (200, f"mine-{i}")
            assert [card["id"] for card in answer.json()["data"]] == ["chat"]


def listening(platform: Platform, title: str = "") -> list[tuple[str, int]]:
    """Return where the platform's processes listen, as an address to reach them at."""
    found: set[tuple[str, int]] = set()
    for pid in processes(platform, title):
        try:
            inet = [c.laddr for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        except psutil.Error:
            continue
        found.update((reachable(address.ip), address.port) for address in inet)
    return sorted(found)


def reachable(ip: str) -> str:
    ip = ip.removeprefix("::ffff:")
    return "127.0.0.1" if ip in ("::", "0.0.0.0") else ip  # noqa: S104  (compared, not bound)


def reached(place: tuple[str, int], sent: bytes) -> bytes:
    """Return what is answered there, nothing if nobody is."""
    try:
        return talk(place[1], sent, host=place[0], idle_s=1.0)
    except OSError:
        return b""


def test_no_port_answers_a_chat_or_takes_orders_over_http(locked: Platform) -> None:
    places = [place for place in listening(locked) if place[1] != locked.port]
    assert len(places) > 20
    asked = [message(b"POST %s HTTP/1.1" % CHAT, *key, JSON, CLOSE, body=BODY) for key in ((), (ANN,))]
    asked += [message(line, JSON, CLOSE, body=b'{"entrypoint": "true", "applications": []}') for line in ORDERS]
    tried = list(itertools.product(places, asked))
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda each: reached(*each), tried))
    served = [(place, sent[:40]) for (place, sent), answer in zip(tried, answers, strict=True) if 200 in statuses(answer)]
    assert served == []


def test_a_models_own_port_takes_only_the_clusters_token(locked: Platform) -> None:
    report = httpx.get(f"{locked.url}/admin/status", headers=bearer("ops"), timeout=30).json()
    urls = [r["url"] for m in report["models"] for v in m["variants"] for r in v["replicas_detail"]]
    assert [url.rpartition(":")[0] for url in urls] == ["http://127.0.0.1"] * 2
    for url, headers in itertools.product(urls, ({}, bearer("ann"), bearer("ops"), {"x-api-key": KEYS["ops"]})):
        answer = httpx.post(f"{url}/v1/chat/completions", content=BODY, headers=headers, timeout=10)
        assert (answer.status_code, leaks_in(answer.text)) == (401, [])
        assert httpx.get(f"{url}/metrics", headers=headers, timeout=10).status_code == 401


def test_the_routers_own_port_asks_for_keys(locked: Platform) -> None:
    sent = message(b"POST %s HTTP/1.1" % CHAT, JSON, CLOSE, body=BODY)
    answers = [statuses(reached(place, sent)) for place in listening(locked, "ServeReplica:router")]
    assert [found for found in answers if found] == [[401]]


async def grpc_end(place: tuple[str, int], method: str, *metadata: tuple[str, str | bytes]) -> grpc.aio.AioRpcError | None:
    """Return how a call ends; None when it is answered."""
    async with grpc.aio.insecure_channel(f"{place[0]}:{place[1]}") as opened:
        try:
            await opened.unary_unary(method)(VAULT.SerializeToString(), metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as err:
            return err
    return None


async def test_no_port_answers_a_call_or_runs_what_is_sent(locked: Platform) -> None:
    inside = "/ray.serve.ASGIService/HandleRequest"  # Serve's way between replicas: it runs what it is sent
    tried = list(itertools.product(listening(locked), (SERVICE + "Generate", SERVICE + "heartbeat", inside)))
    ends = [await grpc_end(place, method, RIGHT) for place, method in tried]
    assert [each for each, end in zip(tried, ends, strict=True) if end is None] == []
    guarded = [end.code() for (_, method), end in zip(tried, ends, strict=True) if end and method == inside]
    assert guarded.count(grpc.StatusCode.UNAUTHENTICATED) >= len(CONFIG["models"]) + 3  # the Router, Rollouts, Limits
    failed = [end.details() or "" for end in ends if end and end.code() is grpc.StatusCode.UNKNOWN]
    assert [text for text in failed if not text.startswith("Received http2 header")] == []  # those are HTTP servers


@pytest_asyncio.fixture
async def channel(locked: Platform) -> AsyncGenerator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(locked.grpc_target) as opened:
        yield opened


CALLS: dict[str, tuple[grpc.StatusCode, tuple[tuple[str, str | bytes], ...]]] = {
    "no-key": (grpc.StatusCode.UNAUTHENTICATED, ()),
    "wrong-key": (grpc.StatusCode.UNAUTHENTICATED, (("authorization", "Bearer wrong"),)),
    "expired": (grpc.StatusCode.UNAUTHENTICATED, (("authorization", f"Bearer {KEYS['old']}"),)),
    "binary": (grpc.StatusCode.UNAUTHENTICATED, (("authorization-bin", OPS[1].encode()),)),
    "twice-right-first": (grpc.StatusCode.UNAUTHENTICATED, (OPS, ("authorization", "Bearer wrong"))),
    "twice-wrong-first": (grpc.StatusCode.UNAUTHENTICATED, (("authorization", "Bearer wrong"), OPS)),
    "x-api-key-differs": (grpc.StatusCode.UNAUTHENTICATED, (OPS, ("x-api-key", KEYS["ann"]))),
    "not-this-model": (grpc.StatusCode.PERMISSION_DENIED, (RIGHT,)),
    "other-application": (grpc.StatusCode.NOT_FOUND, (OPS, ("application", "llm.vault.stable"))),
    "rollouts": (grpc.StatusCode.NOT_FOUND, (("application", "rollouts"),)),
    "router-twice": (grpc.StatusCode.UNAUTHENTICATED, (("application", "router"), ("application", "router"))),
    "what-ray-would-obey": (
        grpc.StatusCode.UNAUTHENTICATED,
        (("x-request-timeout-seconds", "0.01"), ("multiplexed_model_id", "m"), ("request_id", "r"), ("session_id", "s")),
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("method", ["Chat", "Generate"])
async def test_a_call_is_refused_and_shows_nothing(channel: grpc.aio.Channel, name: str, method: str) -> None:
    code, metadata = CALLS[name]
    request = VAULT if method == "Chat" else inference_pb2.GenerateRequest(model="vault", prompt="hi")
    make: Any = channel.unary_stream if method == "Chat" else channel.unary_unary
    call = make(SERVICE + method)(request.SerializeToString(), metadata=metadata, timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (anext(aiter(call)) if method == "Chat" else call)
    assert caught.value.code() is code, caught.value.details()
    said = f"{caught.value.details()} {caught.value.initial_metadata()} {caught.value.trailing_metadata()}"
    details = "" if code is grpc.StatusCode.NOT_FOUND else str(rpc_status.from_call(caught.value))
    assert leaks_in(said + details) == []


async def test_what_is_told_without_a_key_names_nothing_that_is_deployed(channel: grpc.aio.Channel, locked: Platform) -> None:
    ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    [answer] = [each async for each in reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(ask)]
    told = [str(answer), str(await channel.unary_unary("/ray.serve.RayServeAPIService/ListApplications")(b""))]
    for path in ("/-/routes", "/-/healthz", "/healthz", "/readyz", "/openapi.json", "/docs"):
        told.append((await asyncio.to_thread(httpx.get, f"{locked.url}{path}", timeout=20)).text)
    assert [text for text in told if "vault" in text or "stable" in text] == []


async def test_metadata_that_ray_would_obey_changes_nothing(channel: grpc.aio.Channel) -> None:
    request = inference_pb2.GenerateRequest(model="chat", prompt="hi", sampling=common_pb2.Sampling(max_tokens=2))
    odd = (("x-request-timeout-seconds", "0.001"), ("multiplexed_model_id", "m"), ("x-manta-model", "evil"))
    call = channel.unary_unary(SERVICE + "Generate")(request.SerializeToString(), metadata=(RIGHT, *odd), timeout=30)
    assert inference_pb2.GenerateResponse.FromString(await call).origin.model == "chat"
    assert "evil" not in str(await call.trailing_metadata())


async def test_the_fronts_do_not_speak_each_others_protocol(locked: Platform) -> None:
    end = await grpc_end(("127.0.0.1", locked.port), SERVICE + "Generate")
    assert end is not None
    answer = await asyncio.to_thread(reached, ("127.0.0.1", locked.grpc_port), message(b"GET /v1/models HTTP/1.1", ANN))
    assert 200 not in statuses(answer)


@pytest.mark.parametrize("path", ["/api/serve/applications/", "/api/jobs/", "/api/cluster_status", "/logical/actors", "/nodes"])
def test_rays_own_api_asks_for_its_token(locked: Platform, path: str) -> None:
    for headers in ({}, bearer("ops")):
        answer = httpx.get(f"{locked.cluster.dashboard_url}{path}", headers=headers, timeout=20)
        assert answer.status_code in (401, 403), path


def test_the_slow_model_has_seen_none_of_this_and_would_have_shown_it(locked: Platform, attacked: dict[str, bytes]) -> None:
    assert attacked
    time.sleep(3)  # replicas report their load every second
    assert seen_by_the_vault(locked) == 0
    with pytest.raises(httpx.ReadTimeout):
        ask(locked, "ops", "vault", timeout=2)
    deadline_s = time.monotonic() + 20
    while not seen_by_the_vault(locked):
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
