"""What Routers count, at both places where Prometheus may look."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.conftest import CONFIG
from tests.integration.platform import Platform

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

MODEL = "counted"  # nobody else's: counts of Routers that are gone stay on Ray's port
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "stream": True}
ASKED = 40
COUNTED = (
    "manta_requests_total",
    "manta_time_to_first_token_seconds_bucket",
    "manta_time_to_first_token_seconds_count",
    "manta_inter_token_seconds_bucket",
    "manta_stage_seconds_count",
    "manta_tokens_total",
)
Series = tuple[str, tuple[tuple[str, str], ...]]


def test_a_routers_own_metrics_and_rays_port_agree(bare_platform: Platform) -> None:
    [chat] = CONFIG["models"]
    bare_platform.deploy({"models": [{**chat, "name": MODEL}], "router": {**CONFIG["router"], "replicas": 1}})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(bare_platform), range(ASKED)))
    ask(bare_platform, model="nobody")
    assert answers == [200] * ASKED
    deadline_s = time.monotonic() + 60
    while True:
        own, shown = counts(f"{bare_platform.url}/metrics"), counts(bare_platform.cluster.metrics_url, prefix="ray_")
        if own == shown:
            break
        assert time.monotonic() < deadline_s, {key: (own[key], shown[key]) for key in own | shown if own[key] != shown[key]}
        time.sleep(1)
    assert own["manta_requests_total", (("model", MODEL), ("outcome", "ok"), ("variant", "stable"))] == ASKED


def ask(platform: Platform, **changes: str) -> int:
    return httpx.post(f"{platform.url}/v1/chat/completions", json={**CHAT, **changes}, timeout=60).status_code


def counts(url: str, *, prefix: str = "") -> Counter[Series]:
    """Return what is counted of the model, summed over everything that Ray adds to tell processes apart."""
    found: Counter[Series] = Counter()
    for family in text_string_to_metric_families(httpx.get(url, timeout=30).text):
        for sample in family.samples:
            name = sample.name.removeprefix(prefix)
            if name in COUNTED and sample.labels.get("model") == MODEL:
                known = ("model", "variant", "outcome", "le", "stage", "direction")
                labels = tuple(sorted((label, sample.labels[label]) for label in known if label in sample.labels))
                found[name, labels] += sample.value  # type: ignore[assignment]
    return +found
