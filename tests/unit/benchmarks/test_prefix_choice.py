from __future__ import annotations

import json

import pytest

from benchmarks.data_path.contracts import Endpoint
from benchmarks.prefix_choice.__main__ import table
from benchmarks.prefix_choice.engines import Cached, Sample, Watch, read_fake, read_vllm
from benchmarks.prefix_choice.workload import bodies, documents
from serve_app.affinity import prefix_key

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="demo"} 3.0
vllm:num_requests_waiting{engine="0",model_name="demo"} 2.0
vllm:prefix_cache_queries_total{engine="0",model_name="demo"} 1000.0
vllm:prefix_cache_queries_created{engine="0",model_name="demo"} 1.7e+09
vllm:prefix_cache_hits_total{engine="0",model_name="demo"} 250.0
"""


def watch(*moments: list[Sample]) -> Watch:
    made = Watch("fake", [Endpoint("127.0.0.1", 1, "fake")] * len(moments[0]))
    made.samples = list(moments)
    return made


def test_vllms_metrics_say_what_is_open_and_what_was_cached() -> None:
    assert read_vllm(METRICS) == Sample(5.0, Cached(1000.0, 250.0))


def test_the_fakes_counters_say_the_same() -> None:
    assert read_fake('{"open": 4, "prompt_chars": 10, "cached_chars": 5, "other": 1}') == Sample(4, Cached(10, 5))


def test_hits_are_those_between_the_first_and_the_last_moment_of_all_engines() -> None:
    before = [Sample(1, Cached(100, 100)), Sample(1, Cached(0, 0))]
    after = [Sample(1, Cached(200, 150)), Sample(1, Cached(100, 0))]
    assert watch(before, after).hit_ratio() == 0.25


@pytest.mark.parametrize(
    ("loads", "imbalance"),
    [
        pytest.param([[2, 2], [4, 4]], 1.0, id="even"),
        pytest.param([[3, 1], [3, 1]], 1.5, id="three-to-one"),
        pytest.param([[0, 0]], 1.0, id="idle"),
    ],
)
def test_imbalance_is_the_largest_mean_load_over_the_mean(loads: list[list[float]], imbalance: float) -> None:
    moments = [[Sample(load, Cached(0, 0)) for load in moment] for moment in loads]
    assert watch(*moments).imbalance() == imbalance


def test_every_document_is_a_prefix_of_its_own_and_every_question_keeps_its_documents() -> None:
    texts = documents(16, 2_000, seed=3)
    requests = [json.loads(line) for line in bodies(texts, model="m", requests=400, tokens=4, seed=3)]
    keys = {request["messages"][0]["content"]: prefix_key(request) for request in requests}
    assert (len(keys), len(set(keys.values()))) == (16, 16)
    assert all(prefix_key(request) == keys[request["messages"][0]["content"]] for request in requests)


def test_the_table_compares_with_random_round_by_round() -> None:
    def row(number: int, policy: str, mean: float) -> dict[str, object]:
        ttft = {"p50": mean, "mean": mean}
        told = {"requests": 10, "errors": {"cut": 1}, "hit_ratio": 0.5, "imbalance": 1.25}
        return {"round": number, "policy": policy, "ttft_ms": ttft, **told}

    found = [row(n, p, mean) for n, scale in ((0, 1.0), (1, 2.0)) for p, mean in
             (("random", 100.0 * scale), ("least_loaded", 90.0 * scale), ("prefix", 25.0 * scale))]  # fmt: skip
    assert table(found).splitlines()[-1] == "| prefix | 38 | 38 | 0.25 | 50% | 1.25 | 20 | 2 |"
