from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from serve_app import shadow
from serve_app.lease import Lease
from serve_app.pool import Target
from serve_app.replica_set import EJECTION
from serve_app.rollout.histogram import Histogram
from serve_app.rollout.telemetry import Outcome
from serve_app.sse import DONE_EVENT
from serve_app.streams import LeasedStream
from serve_app.upstream import ReplicaDraining
from tests.unit.serve_app.fakes import (
    BROKEN,
    Answer,
    FakeClock,
    FakeResponse,
    entry,
    leases_of,
    turns,
    until,
    upstream_of,
    woken_of,
)
from tests.unit.serve_app.shadowing import (
    ERROR,
    KEY,
    READY,
    ask,
    drained,
    events,
    gated,
    hang,
    settled,
    shadowed,
    stream,
    whole,
)


@pytest.mark.parametrize("answer", [events, whole])
async def test_a_request_is_copied_when_its_answer_is_here_and_not_before(answer: Any) -> None:
    gate = asyncio.Event()
    made = shadowed(gated(gate, answer("a")), answer("b"))
    asking = asyncio.create_task(ask(made))
    await turns()
    assert upstream_of(made).asked == ["http://r1"]
    gate.set()
    await drained(await asking)
    await settled(made)
    assert upstream_of(made).asked == ["http://r1", "http://c1"]
    first, copy = upstream_of(made).requests
    assert (copy.body, copy.path, copy.request_id) == (first.body, first.path, "q1-shadow")


async def test_a_copy_that_hangs_delays_nobody_and_ends_with_the_router() -> None:
    made = shadowed(events("a"), hang, compare="exact")
    assert b'"a"' in await drained(await ask(made))
    await turns()
    assert leases_of(made) == 1
    await made.shadows.close()
    assert (await settled(made)).copied == 1


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        pytest.param(BROKEN, "unreachable", id="unreachable"),
        pytest.param(ReplicaDraining("http://c1"), "unreachable", id="draining"),
        pytest.param(FakeResponse(status=500), "server_error", id="5xx"),
        pytest.param(FakeResponse(status=400), "rejected", id="4xx"),
        pytest.param(stream(ERROR), "server_error", id="error-in-place-of-an-answer"),
        pytest.param(stream(b"data: 1\n\n", BROKEN), "broken", id="broken"),
        pytest.param(stream(b"data: 1\n\n", ERROR[:8], ERROR[8:]), "broken", id="error-after-the-first-byte"),
        pytest.param(RuntimeError("odd"), "other", id="odd"),
    ],
)
async def test_a_copy_that_fails_is_counted_and_the_client_hears_nothing(answer: Answer, outcome: str) -> None:
    made = shadowed(events("a"), answer, compare="exact")
    assert b'"a"' in await drained(await ask(made))
    stats = await settled(made)
    assert (stats.copied, stats.failed, stats.compared) == (1, Counter([outcome]), 0)
    if isinstance(answer, FakeResponse):
        assert answer.closed == 1


async def test_a_fault_of_ours_is_counted_and_the_client_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "has_text", None)
    made = shadowed(events("a"))
    assert b'"a"' in await drained(await ask(made))
    assert (await settled(made)).failed == Counter(other=1)


async def test_a_copy_that_takes_too_long_fails() -> None:
    made = shadowed(events("a"), hang, timeout=0.001)
    await drained(await ask(made))
    assert (await settled(made)).failed == Counter(timeout=1)


async def test_the_request_id_decides_whether_a_request_is_copied() -> None:
    async def copied() -> list[str]:
        made = shadowed(whole("a"), percent=25)
        for number in range(200):
            await ask(made, f"q{number}")
            await settled(made)
        return [each.request_id for each in upstream_of(made).requests if each.request_id.endswith("-shadow")]

    first = await copied()
    assert first == await copied()
    assert 35 < len(first) < 65


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"path": "/v1/embeddings"}, id="no-text"),
        pytest.param({"content_type": "multipart/form-data"}, id="no-json"),
        pytest.param({"variant": "stable"}, id="pinned"),
        pytest.param({"variant": "canary"}, id="answered-by-itself"),
    ],
)
async def test_some_requests_are_never_copied(changes: dict[str, Any]) -> None:
    made = shadowed(events("a"), compare="exact")
    reply = await ask(made, **changes)
    assert type(reply.body) is LeasedStream
    await drained(reply)
    assert made.shadows.take() == {}


async def test_what_the_variant_answers_itself_is_not_copied() -> None:
    made = shadowed(replicas=(entry("r1"),), variant="stable")
    await ask(made)
    assert made.shadows.take() == {}


async def test_a_copy_too_many_is_dropped() -> None:
    made = shadowed(whole("a"), hang, whole("b"), max_concurrent=1)
    await ask(made)
    await turns()
    await ask(made)
    await made.shadows.close()
    stats = await settled(made)
    assert (stats.copied, stats.dropped) == (1, Counter(too_many=1))


async def test_no_variant_is_woken_for_a_copy() -> None:
    made = shadowed(events("a"), replicas=READY[:1], compare="exact")
    reply = await ask(made)
    assert type(reply.body) is LeasedStream  # nothing is kept for a copy that is not made
    await drained(reply)
    stats = await settled(made)
    assert (stats.copied, stats.dropped, woken_of(made).calls) == (0, Counter(no_replica=1), [])


async def test_a_copy_does_not_wait_for_a_place() -> None:
    made = shadowed(whole("a"))
    held = [made.pool.try_lease(Target(*KEY, 2), prefix="k") for _ in range(2)]
    await ask(made)
    for lease in held:
        assert lease is not None
        lease.release()
    assert (await settled(made)).dropped == Counter(busy=1)


async def test_no_copy_takes_the_place_of_the_request_that_tells_whether_a_replica_is_well_again() -> None:
    clock = FakeClock()
    made = shadowed(whole("a"), whole("b"), replicas=(*READY, entry("c2", "canary")), clock=clock)
    for replica_id in ("c1", "c2"):
        made.pool.judge(Lease(replica_id, "canary", "", has_adapter=True, _release=lambda: None), Outcome.UNREACHABLE)
        clock.now_s += EJECTION.base_s
        await ask(made)  # its prefix leads to one of the two
        await settled(made)
        trial = made.pool.try_lease(Target(*KEY, 2), prefix="k", exclude={"c1", "c2"} - {replica_id})
        assert trial is not None
        assert (trial.replica_id, trial.is_trial) == (replica_id, True)
        made.pool.judge(trial, Outcome.OK)
        trial.release()
        asked = upstream_of(made).asked
        [other] = {"c1", "c2"} - {replica_id}
        assert asked == ["http://r1", f"http://{other}"]
        asked.clear()


async def test_a_copy_is_sent_to_the_last_replica_also_on_trial() -> None:
    clock = FakeClock()
    made = shadowed(whole("a"), whole("b"), clock=clock)  # or a variant that gets copies only would never get one again
    made.pool.judge(Lease("c1", "canary", "", has_adapter=True, _release=lambda: None), Outcome.UNREACHABLE)
    clock.now_s += EJECTION.base_s
    await ask(made)
    assert (await settled(made)).copied == 1


async def test_nothing_is_copied_while_requests_wait() -> None:
    gate = asyncio.Event()

    async def opened() -> FakeResponse:
        await gate.wait()
        return whole("a")

    made = shadowed(opened)
    asking = [asyncio.create_task(ask(made)) for _ in range(3)]
    await until(made.pool.waiting)
    gate.set()
    await asyncio.gather(*asking)
    stats = await settled(made)
    assert (stats.dropped["busy"], stats.copied) == (2, 1)


async def test_a_request_that_would_wait_gets_the_place_of_the_copies() -> None:
    made = shadowed(whole("a"), hang)
    for _ in range(2):
        await ask(made)
        await turns()
        upstream_of(made).answers = [whole("a"), hang]
    upstream_of(made).answers = [whole("c")]
    assert leases_of(made) == 2
    async with asyncio.timeout(1):
        reply = await ask(made, variant="canary")
    assert (reply.variant, made.pool.waiting()) == ("canary", 0)
    stats = await settled(made, own=1)
    assert (stats.copied, stats.dropped, stats.failed) == (2, Counter(shed=2), Counter())


async def test_a_copy_that_is_shed_before_it_began_leaves_nothing() -> None:
    made = shadowed(whole("a"), compare="exact")
    await ask(made)
    assert (made.shadows.shed(KEY), made.shadows.shed(KEY), leases_of(made)) == (True, False, 0)
    assert (await settled(made)).dropped == Counter(shed=1)
    await turns()
    assert upstream_of(made).asked == ["http://r1"]


async def test_a_copy_that_waits_for_the_clients_end_holds_no_place_and_is_not_shed() -> None:
    gate = asyncio.Event()
    made = shadowed(stream(*events("a").parts, gate), events("a"), compare="exact")
    reading = asyncio.create_task(drained(await ask(made)))
    await until(lambda: leases_of(made) == 1)
    assert not made.shadows.shed(KEY)
    gate.set()
    await reading
    assert (await settled(made)).agreed == 1


@pytest.mark.parametrize(("pieces", "count"), [(1, 0), (2, 1)], ids=["before-the-end", "after-the-last-word"])
async def test_a_client_that_leaves_does_not_end_the_copy(pieces: int, count: int) -> None:
    gate = asyncio.Event()
    made = shadowed(stream(*events("a").parts[:2], DONE_EVENT), gated(gate, events("a")), compare="exact")
    reply = await ask(made)
    assert not isinstance(reply.body, bytes)
    for _ in range(pieces):
        await anext(reply.body)
    await reply.body.aclose()
    await turns()
    gate.set()
    stats = await settled(made)
    assert (stats.slower.total + stats.faster.total, stats.compared) == (1, count)


@pytest.mark.parametrize("answer", [events, whole])
@pytest.mark.parametrize(("client_s", "copy_s"), [(1.0, 3.0), (3.0, 1.0)], ids=["slower", "faster"])
async def test_first_bytes_are_compared_by_when_they_came(answer: Any, client_s: float, copy_s: float) -> None:
    clock = FakeClock()

    def late(seconds: float) -> Answer:
        async def opened() -> FakeResponse:
            clock.now_s += seconds
            response: FakeResponse = answer("a")
            return response

        return opened

    made = shadowed(late(client_s), late(copy_s), clock=clock)
    await drained(await ask(made))
    stats = await settled(made)
    two = Histogram()
    two.observe(2.0)
    assert (stats.slower, stats.faster) == ((two, Histogram()) if copy_s > client_s else (Histogram(), two))


async def test_what_was_taken_is_not_counted_again() -> None:
    made = shadowed(whole("a"))
    await ask(made)
    assert (await settled(made)).copied == 1
    assert made.shadows.take() == {}
