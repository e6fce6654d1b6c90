from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from deployments.llm.vllm_metrics import LEFT_OUT, VllmFamilies
from deployments.ray_export import RayExport
from tests.unit.deployments.exporting import Shop

WHOSE = {"model": "chat", "variant": "stable", "ReplicaId": "r1"}
ALL = ("chat", "0", "chat", "stable", "r1")


@pytest.fixture
def process() -> CollectorRegistry:
    """What vLLM 0.29 registers, in little, beside what others do."""
    made = CollectorRegistry()
    labels = ["model_name", "engine"]
    Counter("vllm:generation_tokens", "Tokens.", labels, registry=made).labels("chat", "0").inc(7)
    Gauge("vllm:num_requests_running", "Running.", labels, registry=made).labels("chat", "0").set(2)
    Histogram("vllm:time_to_first_token_seconds", "TTFT.", labels, buckets=[0.1, 1.0], registry=made).labels(
        "chat", "0"
    ).observe(0.5)
    Gauge("vllm:lora_requests_info", "LoRA.", ["running_lora_adapters"], registry=made).labels("a,b").set(1)
    Counter("http_requests", "Of the web framework.", registry=made).inc()
    return made


def exported(process: CollectorRegistry) -> Shop:
    shop = Shop()
    RayExport(VllmFamilies(WHOSE, source=process), make=shop).export()
    return shop


def test_vllms_metrics_get_the_names_that_rays_dashboards_know(process: CollectorRegistry) -> None:
    assert set(exported(process).made) == {
        "vllm_generation_tokens_total",
        "vllm_num_requests_running",
        "vllm_time_to_first_token_seconds_bucket",
        "vllm_time_to_first_token_seconds_count",
        "vllm_time_to_first_token_seconds_sum",
    }


def test_they_say_which_model_variant_and_replica_they_are_of(process: CollectorRegistry) -> None:
    shop = exported(process)
    assert shop.values("vllm_generation_tokens_total") == {ALL: 7}
    assert shop.values("vllm_num_requests_running") == {ALL: 2}
    names = ("model_name", "engine", "model", "variant", "ReplicaId")
    assert shop.made["vllm_generation_tokens_total"].metric.labels == names
    assert shop.made["vllm_time_to_first_token_seconds_bucket"].metric.labels == ("model_name", "engine", "le", *names[2:])


def test_a_histogram_keeps_its_buckets(process: CollectorRegistry) -> None:
    buckets = exported(process).values("vllm_time_to_first_token_seconds_bucket")
    assert {labels[2]: count for labels, count in buckets.items()} == {"0.1": 0, "1.0": 1, "+Inf": 1}


def test_what_vllm_itself_serves_stays_as_it_is(process: CollectorRegistry) -> None:
    before = [sample for family in process.collect() for sample in family.samples]
    exported(process)
    assert [sample for family in process.collect() for sample in family.samples] == before


def test_names_that_are_left_out_are_vllms(process: CollectorRegistry) -> None:
    assert {family.name for family in process.collect()} >= LEFT_OUT


def test_a_process_without_vllm_has_nothing_to_show() -> None:
    assert exported(CollectorRegistry()).made == {}
