from __future__ import annotations

import asyncio
import random
from collections import deque
from itertools import pairwise

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve_app import metrics
from serve_app.config import AuthConfig
from serve_app.lease import Target
from serve_app.observing.gateway_metrics import about_sum_s, buckets
from serve_app.observing.record import RequestRecord
from serve_app.observing.request_metrics import RequestMetrics
from serve_app.registry import Registry
from serve_app.rollout.histogram import Histogram, bucket_end_s, bucket_index
from serve_app.upstream import ReplicaUnreachable
from tests.unit.serve_app.fakes import BROKEN, FakeClock, FakeResponse, entry, gateway, snapshot, turns
from tests.unit.serve_app.observing.test_records import STREAM, Strict, streamed
from tests.unit.serve_app.observing.watching import Watched
from tests.unit.serve_app.rest.front import ASK, CHAT, ready
from tests.unit.serve_app.rpc.front import END, LAST, word
from tests.unit.serve_app.test_view import ANN, ANN_KEY, BOB, BOB_KEY

OPS = BOB.model_copy(update={"admin": True})
WHO = {"model": "chat", "variant": "stable"}


async def test_a_stream_is_counted_with_its_times_and_tokens() -> None:
    watched = Watched(ready(streamed(word("a"), word("b"), END, LAST)))
    await watched.request("POST", CHAT, json=STREAM)
    assert watched.value("manta_requests_total", front="rest", outcome="ok", **WHO) == 1
    assert watched.value("manta_time_to_first_token_seconds_count", **WHO) == 1
    assert watched.value("manta_request_seconds_count", **WHO) == 1
    assert watched.value("manta_inter_token_seconds_count", **WHO) == 3
    assert watched.value("manta_inter_token_seconds_bucket", le="+Inf", **WHO) == 3
    assert [watched.value("manta_tokens_total", direction=d, **WHO) for d in ("prompt", "completion")] == [3, 2]
    assert watched.value("manta_stage_seconds_count", model="chat", stage="first_token") == 1


async def test_a_broken_stream_is_counted_as_such_and_by_no_duration() -> None:
    watched = Watched(ready(streamed(word("a"), BROKEN)))
    await watched.request("POST", CHAT, json=STREAM)
    assert watched.value("manta_requests_total", front="rest", outcome="broken", **WHO) == 1
    assert watched.value("manta_request_seconds_count", **WHO) == 0


async def test_retries_ejections_and_limits_are_counted() -> None:
    made = gateway(ReplicaUnreachable("gone", was_sent=False), FakeResponse())
    made.update(snapshot(entry("r1"), entry("r2")))
    watched = Watched(made)
    await watched.request("POST", CHAT, json=ASK)
    assert watched.value("manta_retries_total", model="chat", outcome="unreachable") == 1
    assert watched.value("manta_replica_ejections_total", reason="unreachable", **WHO) == 1
    strict = Watched(ready(), admission=Strict())
    await strict.request("POST", CHAT, json=ASK)
    assert strict.value("manta_limits_hit_total", limit="tokens") == 1


async def test_streams_that_went_on_elsewhere_are_counted() -> None:
    registry = Registry()
    RequestMetrics(registry).ended(RequestRecord(asked="chat", continued=2))
    assert registry.get_sample_value("manta_streams_continued_total", {"model": "chat"}) == 2


async def test_how_long_ago_a_router_heard_from_rollouts_shows() -> None:
    clock = FakeClock()
    watched = Watched(gateway(clock=clock))
    clock.now_s += 70.0  # since it began
    assert watched.registry.get_sample_value("manta_directory_age_seconds") == 70.0
    watched.inference.gateway.update(snapshot(entry("r1")))
    clock.now_s += 3.0
    assert watched.registry.get_sample_value("manta_directory_age_seconds") == 3.0


async def test_what_is_open_shows_while_it_is() -> None:
    clock, gate = FakeClock(), asyncio.Event()
    watched = Watched(gateway(streamed(word("a"), gate, END), clock=clock))
    watched.inference.gateway.update(snapshot(entry("r1")))
    asked = asyncio.create_task(watched.request("POST", CHAT, json=STREAM))
    await turns(200)
    assert watched.value("manta_streams_open_count", **WHO) == 1
    gate.set()
    await asked
    assert watched.registry.get_sample_value("manta_streams_open_count", WHO) == 0
    assert watched.registry.get_sample_value("manta_held_requests_count", WHO) == 0


async def test_who_was_refused_because_of_load_is_counted_by_priority_and_reason() -> None:
    made = ready()
    watched = Watched(made)
    made.pool.room.max_waiting = 0
    held = [made.pool.try_lease(Target("chat", "stable", 2), prefix="k") for _ in range(2)]
    await watched.request("POST", CHAT, json=ASK)
    assert watched.value("manta_shed_total", priority="5", reason="queue_full", **WHO) == 1
    assert watched.value("manta_limits_hit_total", limit="queue") == 1
    assert None not in held


async def test_the_wait_that_is_expected_shows_once_it_is_known() -> None:
    clock = FakeClock()
    made = gateway(FakeResponse(), clock=clock)
    made.update(snapshot(entry("r1")))
    watched = Watched(made)
    assert watched.registry.get_sample_value("manta_expected_wait_seconds", WHO) == 0
    held = deque(made.pool.try_lease(Target("chat", "stable", 2), prefix="k") for _ in range(2))

    async def wait() -> None:
        held.append(await made.pool.lease(lambda: Target("chat", "stable", 2), prefix="k", timeout_s=600))

    tasks = [asyncio.create_task(wait()) for _ in range(20)]
    await turns()
    for _ in range(10):  # two places a second, and ten are left
        clock.now_s += 0.5
        if (first := held.popleft()) is not None:
            first.release()
        await turns()
    assert watched.registry.get_sample_value("manta_expected_wait_seconds", WHO) == pytest.approx(5.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_rollouts_have_taken_still_counts() -> None:
    watched = Watched(ready(streamed(word("a"), word("b"), END), streamed(word("a"), word("b"), END)))
    await watched.request("POST", CHAT, json=STREAM)
    watched.inference.gateway.attempts.take()
    await watched.request("POST", CHAT, json=STREAM)
    assert watched.value("manta_inter_token_seconds_count", **WHO) == 4


async def test_metrics_are_shown_in_the_form_that_prometheus_reads() -> None:
    watched = Watched(ready(streamed(word("a"), word("b"), END)))
    await watched.request("POST", CHAT, json=STREAM)
    response = await watched.request("GET", "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert {metric.name.removesuffix("_total") for metric in metrics.ROUTER} == set(families)
    shown = {sample.value for sample in families["manta_requests"].samples if sample.name == "manta_requests_total"}
    assert (shown, response.headers["content-type"].startswith("text/plain")) == ({1.0}, True)


async def test_metrics_are_for_admins_where_keys_are_asked_for() -> None:
    watched = Watched(ready(auth=AuthConfig(keys=(ANN, OPS))))
    statuses = []
    for headers in ({}, {"authorization": f"Bearer {ANN_KEY}"}, {"authorization": f"Bearer {BOB_KEY}"}):
        statuses.append((await watched.request("GET", "/metrics", headers=headers)).status_code)
    assert statuses == [401, 403, 200]


async def test_ten_thousand_clients_make_no_more_series_than_one() -> None:
    watched = Watched(ready(FakeResponse()))
    await watched.request("POST", CHAT, json=ASK)
    await watched.request("POST", CHAT, json={**ASK, "model": "nope"})
    await watched.request("GET", "/nope")
    before = series(watched)
    for client in range(3_333):
        headers = {"x-session-id": f"s{client}", "x-request-id": f"q{client}", "user-agent": f"a{client}"}
        await watched.request("POST", CHAT, json={**ASK, "user": f"u{client}"}, headers=headers)
        await watched.request("POST", CHAT, json={**ASK, "model": f"nope-{client}"}, headers=headers)
        await watched.request("GET", f"/nope/{client}", headers=headers)
    assert series(watched) == before
    assert watched.value("manta_requests_total", front="rest", outcome="client_error", model="none", variant="none") == 6_668


def series(watched: Watched) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {(s.name, tuple(s.labels.items())) for family in watched.registry.collect() for s in family.samples}


@pytest.mark.parametrize("metric", [m for m in metrics.ROUTER if m.kind == "histogram" and m is not metrics.PASSAGES],
                         ids=lambda metric: metric.name)  # fmt: skip
def test_ends_of_buckets_lie_on_the_grid_that_routers_count_on(metric: metrics.Metric) -> None:
    for end in metric.buckets:
        assert end == pytest.approx(bucket_end_s(bucket_index(end * 0.98)), rel=6e-4)
    assert all(a < b for a, b in pairwise(metric.buckets))


def test_exported_buckets_count_exactly_what_was_observed() -> None:
    rng, counted = random.Random(1), Histogram()  # noqa: S311
    durations = [rng.lognormvariate(-3, 1.5) for _ in range(5_000)]
    for duration in durations:
        counted.observe(duration)
    shown = dict(buckets(counted, metrics.GAP_BUCKETS))
    for end, count in shown.items():
        limit = float("inf") if end == "+Inf" else bucket_end_s(bucket_index(float(end) * 0.98))
        assert count == sum(duration <= limit for duration in durations)
    assert about_sum_s(counted) == pytest.approx(sum(durations), rel=0.025)
