from __future__ import annotations

import asyncio
import logging

import pytest

from serve_app import waiting_room
from serve_app.errors import Unavailable, UnknownModel
from serve_app.gateway import Gateway
from serve_app.replica_set import Balance
from serve_app.rollout.document import RoutingDocument
from tests.unit.serve_app.fakes import (
    BROKEN,
    FakeResponse,
    call,
    document,
    entry,
    gateway,
    leases_of,
    model,
    relay,
    snapshot,
    turns,
    until,
    woken_of,
)

TWO = document(models=(model(("stable", 90), ("canary", 10)),))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_room, "RECHOOSE_S", 0.001)


def session_of(made: Gateway, variant: str) -> str:
    """Return a session that belongs to the variant."""
    chat = made.view.models["chat"]
    return next(s for s in (f"s{i}" for i in range(1000)) if made.view.variant(chat, call(s).affinity) == variant)


async def test_another_variant_answers_while_the_own_has_no_replica() -> None:
    made = gateway()
    made.update(snapshot(entry("r1"), routing=TWO))
    assert (await relay(made, session_of(made, "canary"))).variant == "stable"
    made.update(snapshot(entry("r1"), entry("c1", "canary"), routing=TWO, version=2))
    assert (await relay(made, session_of(made, "canary"))).variant == "canary"


async def test_another_variant_answers_while_the_own_cannot_be_reached() -> None:
    made = gateway(BROKEN, FakeResponse())
    made.update(snapshot(entry("r1"), entry("c1", "canary"), routing=TWO))
    assert (await relay(made, session_of(made, "canary"))).variant == "stable"
    assert woken_of(made).calls == []  # it is not asleep


async def test_a_variant_without_weight_stands_in_for_nobody() -> None:
    made = gateway()
    made.update(snapshot(entry("c1", "canary"), routing=document(models=(model(("stable", 100), ("canary", 0)),))))
    asking = asyncio.create_task(relay(made))
    await turns()
    assert (asking.done(), made.pool.waiting()) == (False, 1)
    asking.cancel()
    await asyncio.wait([asking])


async def test_a_sleeping_variant_is_woken_once() -> None:
    made = gateway()
    made.update(snapshot())
    asking = [asyncio.create_task(relay(made, f"s{i}")) for i in range(3)]
    await asyncio.sleep(0.01)
    assert (woken_of(made).calls, made.pool.waiting()) == ([("chat", "stable")], 3)
    made.pool.update([entry("r1"), entry("r2")], is_complete=True)
    assert [reply.variant for reply in await asyncio.gather(*asking)] == ["stable"] * 3
    woken_of(made).may_end.set()
    await turns()


def budgeted(*weights: tuple[str, int]) -> RoutingDocument:
    """Return a document whose variants share accelerators with others."""
    chat = model(*weights)
    variants = tuple(each.model_copy(update={"is_budgeted": True}) for each in chat.variants)
    return document(models=(chat.model_copy(update={"variants": variants}),))


async def test_a_sleeping_variant_that_shares_accelerators_is_left_to_the_policy() -> None:
    made = gateway()
    made.update(snapshot(routing=budgeted(("stable", 100))))
    asking = asyncio.create_task(relay(made))
    await turns()
    assert (woken_of(made).calls, made.needs.news.is_set(), made.needs.tell()) == ([], True, {("chat", "stable"): 1})
    made.pool.update([entry("r1")], is_complete=True)
    assert ((await asking).variant, made.needs.tell()) == ("stable", {})


async def test_a_sleeping_variant_is_missed_although_another_answers_for_it() -> None:
    made = gateway()
    made.update(snapshot(entry("r1"), routing=budgeted(("stable", 90), ("canary", 10))))
    assert (await relay(made, session_of(made, "canary"))).variant == "stable"
    assert (woken_of(made).calls, made.needs.tell()) == ([], {("chat", "canary"): 1})


async def test_a_request_that_waits_for_a_call_is_told_as_well() -> None:
    made = gateway()
    made.update(snapshot())
    asking = asyncio.create_task(relay(made))
    await turns()
    assert (made.needs.news.is_set(), made.needs.tell()) == (True, {("chat", "stable"): 1})
    asking.cancel()
    await asyncio.wait([asking])


@pytest.mark.parametrize("error", [Unavailable("not deployed"), RuntimeError("odd")], ids=["known", "unknown"])
async def test_waking_that_fails_is_logged_and_tried_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[tuple[str, str]] = []

    async def fail(name: str, variant: str) -> None:
        calls.append((name, variant))
        raise error

    made = gateway()
    monkeypatch.setattr(made, "_wake", fail)
    made.update(snapshot())
    with caplog.at_level(logging.WARNING, logger="ray.serve"):
        asking = asyncio.create_task(relay(made))
        await until(lambda: len(calls) >= 2)
    asking.cancel()
    await asyncio.wait([asking])
    assert "waking chat.stable failed" in caplog.text


async def test_a_model_that_goes_while_its_request_waits_is_unknown() -> None:
    made = gateway()
    made.update(snapshot())
    asking = asyncio.create_task(relay(made))
    await turns()
    made.update(snapshot(routing=document(models=()), version=2))
    with pytest.raises(UnknownModel):
        await asking
    woken_of(made).may_end.set()
    await turns()


async def test_a_request_follows_weights_that_change_while_it_waits() -> None:
    made = gateway()
    made.update(snapshot())
    asking = asyncio.create_task(relay(made))
    await turns()
    made.update(snapshot(entry("n1", "next"), routing=document(models=(model(("next", 100)),)), version=2))
    assert (await asking).variant == "next"
    woken_of(made).may_end.set()
    await turns()


async def test_the_document_says_how_replicas_are_chosen() -> None:
    made = gateway(FakeResponse())
    made.update(snapshot(entry(), routing=document(replica_choice="random", balance_factor=2.0), version=2))
    assert made.pool.balance == Balance("random", 2.0)


async def test_a_long_conversation_of_a_model_with_one_variant_is_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gateway(FakeResponse())
    made.update(snapshot(entry()))
    monkeypatch.setattr("serve_app.call.affinity_key", lambda *_, **__: pytest.fail("hashed"))
    assert (await relay(made)).variant == "stable"


async def test_a_conversation_is_hashed_once_however_long_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def key(tenant: str, *_: object, **__: object) -> str:
        hashed.append(tenant)
        return tenant

    made = gateway(FakeResponse())
    made.update(snapshot(routing=TWO, version=2))
    monkeypatch.setattr("serve_app.call.affinity_key", key)
    waiting = asyncio.create_task(relay(made))
    await asyncio.sleep(0.05)  # many looks: RECHOOSE_S is a thousandth here
    assert len(hashed) == 1
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_model_that_goes_while_its_request_is_handed_a_place_costs_no_lease() -> None:
    made = gateway(FakeResponse())
    made.update(snapshot())
    asking = asyncio.create_task(relay(made))
    await turns()
    assert made.pool.waiting() == 1
    made.update(snapshot(entry("r1"), routing=document(models=(), pipelines=()), version=2))
    assert ((await asking).variant, leases_of(made)) == ("stable", 0)
