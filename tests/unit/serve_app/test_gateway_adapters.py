"""Requests of adapters: which version and replica, what is told to it, and whose fault a failure is."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from serve_app.config import ApiKeyConfig
from serve_app.contracts import AdapterTag
from serve_app.engine_errors import UpstreamRejected
from serve_app.errors import AdapterUnavailable, DeadlineExceeded, Forbidden, UnknownModel
from serve_app.gateway import Gateway
from serve_app.inference import Inference
from serve_app.rollout.telemetry import Outcome
from serve_app.upstream import AdapterMissing
from serve_app.view import ANONYMOUS
from tests.unit.serve_app.adapting import LEGAL, adapter, asks, routing, served, withdrawn
from tests.unit.serve_app.fakes import (
    BROKEN,
    SSE,
    FakeClock,
    FakeResponse,
    call,
    document,
    entry,
    gateway,
    leases_of,
    snapshot,
    turns,
    upstream_of,
)

HALVES = adapter(v1=50, v2=50)
BOTH = (("stable", 50), ("canary", 50))
EVENTS = (b'data: {"choices": []}\n\n', b"data: [DONE]\n\n")
FAILED = FakeResponse(status=500)
MISSING = AdapterMissing("http://r1")


def answered(it: Gateway, **which: Any) -> Any:
    return Inference(it).answer(asks(it, **which))


def outcomes(it: Gateway) -> dict[tuple[str, str], dict[str, int]]:
    counted = {key: {o.value: n for o, n in stats.outcomes.items()} for key, stats in it.attempts.take().items()}
    return {key: counts for key, counts in counted.items() if counts}


async def test_the_replica_is_told_the_version_that_owns_the_conversation() -> None:
    it = served(routing=routing(HALVES))
    for version in ("v1", "v2"):
        reply = await answered(it, version=version)
        assert (reply.model, reply.variant, reply.adapter_version) == (LEGAL, "stable", version)
        assert upstream_of(it).requests[-1].adapter == AdapterTag(f"legal/{version}", f"/adapters/{version}", f"rev-{version}")
    assert upstream_of(it).requests[-1].body == b'{"model": "chat:legal", "stream": false}'


async def test_a_model_with_adapters_is_asked_without_any() -> None:
    it = served(routing=routing())
    reply = await Inference(it).answer(call())
    assert (reply.model, reply.adapter_version, upstream_of(it).requests[0].adapter) == ("chat", None, None)
    assert outcomes(it) == {("chat", "stable"): {"ok": 1}}


def test_versions_and_variants_are_shared_independently() -> None:
    it = served(routing=routing(HALVES, *BOTH), canary=True)
    base, found = it.view.adapters[LEGAL]
    assert found is not None
    keys = [call(f"s{i}").affinity for i in range(4000)]
    pairs = Counter((it.view.adapter_version(found, key), it.view.variant(base, key)) for key in keys)
    assert len(pairs) == 4
    assert all(900 < count < 1100 for count in pairs.values())


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_an_answer_counts_for_the_version_and_for_the_variant(version: str) -> None:
    it = served(routing=routing(HALVES))
    await answered(it, version=version)
    assert outcomes(it) == {(LEGAL, version): {"ok": 1}, ("chat", "stable"): {"ok": 1}}


async def test_a_streams_first_byte_counts_for_both_where_the_adapter_was_loaded() -> None:
    it = served(FakeResponse(EVENTS, content_type=SSE), routing=routing(), loaded=("legal/v1",))
    reply = await answered(it, is_stream=True)
    assert [piece async for piece in reply.body] == list(EVENTS)
    stats = it.attempts.take()
    assert {key: (s.ttft.total, s.outcomes[Outcome.OK]) for key, s in stats.items()} == {
        (LEGAL, "v1"): (1, 1),
        ("chat", "stable"): (1, 1),
    }
    assert leases_of(it) == 0


async def test_the_time_of_a_load_counts_for_neither() -> None:
    it = served(FakeResponse(EVENTS, content_type=SSE), routing=routing())
    reply = await answered(it, is_stream=True)
    keys = [(LEGAL, "v1"), ("chat", "stable")]
    assert [w.whole.total for w in it.attempts.waiting(keys).values()] == [0, 0]
    assert [piece async for piece in reply.body] == list(EVENTS)
    stats = it.attempts.take()
    assert [(stats[k].ttft.total, stats[k].e2e.total, stats[k].outcomes[Outcome.OK]) for k in keys] == [(0, 0, 1)] * 2


async def test_a_version_that_cannot_be_loaded_is_tried_on_one_other_replica() -> None:
    it = gateway(MISSING, FakeResponse())
    it.update(snapshot(entry("r1"), entry("r2"), entry("r3"), routing=routing()))
    assert (await answered(it)).adapter_version == "v1"
    assert len(set(upstream_of(it).asked)) == 2
    assert outcomes(it) == {(LEGAL, "v1"): {"server_error": 1, "ok": 1}, ("chat", "stable"): {"ok": 1}}


async def test_a_version_that_two_replicas_cannot_load_is_told_without_a_path() -> None:
    it = gateway(MISSING)
    it.update(snapshot(entry("r1"), entry("r2"), entry("r3"), routing=routing()))
    with pytest.raises(AdapterUnavailable) as caught:
        await answered(it)
    assert caught.value.message == "adapter 'chat:legal' cannot be loaded; the replicas' logs say why"
    assert (caught.value.code, len(upstream_of(it).asked), leases_of(it)) == ("adapter_unavailable", 2, 0)
    assert outcomes(it) == {(LEGAL, "v1"): {"server_error": 2}}


async def test_a_canary_that_cannot_be_loaded_is_answered_by_the_baseline() -> None:
    it = served(MISSING, FakeResponse(), routing=routing(HALVES))
    assert (await answered(it, version="v2")).adapter_version == "v1"
    assert [request.adapter.key for request in upstream_of(it).requests if request.adapter] == ["legal/v2", "legal/v1"]
    assert outcomes(it) == {
        (LEGAL, "v2"): {"server_error": 1},
        (LEGAL, "v1"): {"ok": 1},
        ("chat", "stable"): {"ok": 1},
    }


async def test_a_canary_of_the_model_that_cannot_load_what_the_baseline_can_is_to_blame() -> None:
    it = served(MISSING, FakeResponse(), routing=routing(None, *BOTH), canary=True)
    reply = await answered(it, variant="canary")
    assert (reply.variant, reply.adapter_version) == ("stable", "v1")
    assert outcomes(it) == {
        (LEGAL, "v1"): {"server_error": 1, "ok": 1},
        ("chat", "canary"): {"server_error": 1},
        ("chat", "stable"): {"ok": 1},
    }


async def test_what_no_variant_can_load_is_no_variants_fault() -> None:
    it = served(MISSING, routing=routing(None, *BOTH), canary=True)
    with pytest.raises(AdapterUnavailable):
        await answered(it, variant="canary")
    assert (outcomes(it), len(upstream_of(it).asked)) == ({(LEGAL, "v1"): {"server_error": 2}}, 2)


async def test_a_version_that_stands_in_for_one_that_no_variant_can_load_accuses_nobody() -> None:
    it = served(MISSING, MISSING, FakeResponse(), routing=routing(HALVES, *BOTH), canary=True)
    reply = await answered(it, version="v2", variant="canary")
    assert (reply.variant, reply.adapter_version) == ("stable", "v1")
    assert ("chat", "canary") not in outcomes(it)


async def test_without_fallback_a_canary_is_not_replaced() -> None:
    it = served(MISSING, routing=routing(HALVES, fallback=False))
    with pytest.raises(AdapterUnavailable):
        await answered(it, version="v2")
    assert outcomes(it) == {(LEGAL, "v2"): {"server_error": 2}}


async def test_what_a_canary_of_the_adapter_fails_its_baseline_answers() -> None:
    it = served(FAILED, FakeResponse(), routing=routing(HALVES))
    assert (await answered(it, version="v2")).adapter_version == "v1"
    assert outcomes(it) == {
        (LEGAL, "v2"): {"server_error": 1},
        (LEGAL, "v1"): {"ok": 1},
        ("chat", "stable"): {"server_error": 1, "ok": 1},
    }


async def test_the_models_canary_is_suspected_before_the_adapters() -> None:
    it = served(FAILED, FAILED, FakeResponse(), routing=routing(HALVES, *BOTH), canary=True)
    reply = await answered(it, version="v2", variant="canary")
    assert (reply.variant, reply.adapter_version) == ("stable", "v1")
    seen = [(url, request.adapter.key) for url, request in zip(upstream_of(it).asked, upstream_of(it).requests, strict=True)
            if request.adapter]  # fmt: skip
    assert seen == [("http://c1", "legal/v2"), ("http://r1", "legal/v2"), ("http://r1", "legal/v1")]


async def test_a_fault_of_both_baselines_is_told() -> None:
    it = served(FAILED, routing=routing(HALVES))
    with pytest.raises(UpstreamRejected):
        await answered(it, version="v1")
    assert len(upstream_of(it).asked) == 1


async def test_a_version_that_kills_its_replica_is_not_sent_to_another() -> None:
    it = served(BROKEN, FakeResponse(), routing=routing(HALVES))
    it.update(snapshot(entry("r1"), entry("r2"), routing=routing(HALVES), version=2))
    assert (await answered(it, version="v2")).adapter_version == "v1"


@pytest.mark.parametrize("part", [(LEGAL, "v2"), ("chat", "canary")], ids=["version", "variant"])
async def test_a_request_that_waits_at_what_is_withdrawn_goes_elsewhere(part: tuple[str, str]) -> None:
    never = asyncio.Event()

    async def hangs() -> FakeResponse:
        await never.wait()
        raise AssertionError

    it = served(hangs, FakeResponse(), routing=routing(HALVES, *BOTH), canary=True)
    asking = asyncio.create_task(answered(it, version="v2", variant="canary"))
    await turns()
    withdrawn(it, *part)
    reply = await asking
    expected = {(LEGAL, "v2"): ("canary", "v1"), ("chat", "canary"): ("stable", "v2")}
    assert (reply.variant, reply.adapter_version) == expected[part]
    counted = outcomes(it)
    assert counted[part]["abandoned"] == 1
    assert all(not set(counts) - {"ok", "abandoned"} for counts in counted.values())


async def test_a_late_first_byte_is_a_failure_of_the_version_on_trial() -> None:
    async def hangs() -> FakeResponse:
        await asyncio.Event().wait()
        raise AssertionError

    it = served(hangs, FakeResponse(), routing=routing(HALVES, first_byte_timeout_s=0.01))
    assert (await answered(it, version="v2", is_stream=True)).adapter_version == "v1"
    it = served(hangs, routing=routing(HALVES, first_byte_timeout_s=0.01))
    with pytest.raises(DeadlineExceeded):
        await answered(it, version="v1", is_stream=True)


async def test_an_adapter_that_goes_while_its_request_waits_is_unknown() -> None:
    it = gateway()
    it.update(snapshot(routing=routing()))
    asking = asyncio.create_task(answered(it))
    await turns()
    it.update(snapshot(routing=document(), version=2))
    with pytest.raises(UnknownModel, match="'chat:legal' is not served here"):
        await asking


async def test_a_request_that_was_chosen_anew_is_told_of_the_new_version() -> None:
    it = gateway()
    it.update(snapshot(routing=routing(HALVES)))
    asking = asyncio.create_task(answered(it, version="v2"))
    await turns()
    withdrawn(it, LEGAL, "v2")
    it.update(snapshot(entry("r1"), routing=it.view.document, version=3))
    assert (await asking).adapter_version in ("v1", "v2")
    key = upstream_of(it).requests[0].adapter
    assert key is not None
    assert key.key == f"legal/{(await asking).adapter_version}"


async def test_a_pipeline_may_answer_by_an_adapter() -> None:
    [pipeline] = document().pipelines
    version = pipeline.versions[0].model_copy(update={"model": LEGAL})
    it = served(
        FakeResponse((b'{"choices": [{"message": {"content": "yes"}}]}',)),
        routing=routing().model_copy(update={"pipelines": (pipeline.model_copy(update={"versions": (version,)}),)}),
    )
    body = {"model": "docs", "messages": [{"role": "user", "content": "Why?"}]}
    reply = await Inference(it).answer(replace(call(), body=body))
    assert (reply.model, reply.pipeline_version, reply.adapter_version) == (LEGAL, "v1", "v1")
    assert b'"model": "chat:legal"' in upstream_of(it).requests[0].body


async def test_copies_for_a_shadow_are_of_the_same_version() -> None:
    shadow = {"variant": "canary", "percent": 100}
    base = routing(HALVES, ("stable", 100), ("canary", 0)).model_dump()
    base["models"][0]["shadow"] = shadow
    it = served(FakeResponse(), FakeResponse(), routing=type(routing()).model_validate(base), canary=True)
    await answered(it, version="v2")
    await turns(20)
    assert [request.adapter.key for request in upstream_of(it).requests if request.adapter] == ["legal/v2"] * 2


def key(*models: str) -> ApiKeyConfig:
    return ApiKeyConfig(name="team", hash=f"sha256:{'0' * 32}:{'0' * 64}", models=models)


async def test_a_key_covers_an_adapter_by_its_own_name_only() -> None:
    it = served(routing=routing())
    assert (await Inference(it).answer(replace(asks(it), caller=key(LEGAL)))).model == LEGAL
    for caller, name in ((key("chat"), LEGAL), (key(LEGAL), "chat")):
        with pytest.raises(Forbidden, match=f"may not use model '{name}'"):
            it.view.authorize(caller, name)


def test_an_unknown_adapter_is_an_unknown_model() -> None:
    with pytest.raises(UnknownModel, match="'chat:other' is not served here"):
        served(routing=routing()).view.authorize(ANONYMOUS, "chat:other")


def test_an_adapter_is_ready_when_its_model_is() -> None:
    it = gateway(clock=FakeClock())
    it.update(snapshot(routing=routing()))
    assert it.is_ready(LEGAL) is False
    it.update(snapshot(entry("r1"), routing=routing(), version=2))
    assert it.is_ready(LEGAL) is True


@pytest.mark.parametrize("fallback", [True, False])
def test_a_stream_that_is_kept_alive_is_told_the_adapter_and_the_variant_where_that_is_certain(fallback: bool) -> None:
    it = served(routing=routing(HALVES, *BOTH, fallback=fallback), canary=True)
    asked = asks(it, variant="canary")
    assert Inference(it).settle(asked) is True
    told = None if fallback else "canary"
    assert (asked.answerer.model, asked.answerer.variant, asked.answerer.told_variant) == (LEGAL, "canary", told)
