"""A real Prometheus beside a platform under load: every panel, rule and alert has data, and it agrees with the clients."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadtests import runner
from loadtests.figures import Part, figures
from loadtests.scenario_file import FoundScenario
from serve_app.commands import ingest
from serve_app.config import PlatformConfig
from serve_app.ingest.command import IngestOptions
from tests.integration.observed import drive, everything, timed_scenario
from tests.integration.platform import Platform
from tests.integration.prometheus import Prometheus
from tests.promql import questions, unanswered

pytest.importorskip("helm_python", reason="the chart's rules are rendered by Helm's engine, which is there for x86-64 only")
from tests.chart.helm import CHART, NAMESPACE, RELEASE, of_kind

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

MIXED_S = 45.0
SETTLE_S = 30.0  # what was counted goes out every five seconds, is collected by Ray every ten, and scraped every five
AGREEMENT = 0.10
# As the PodMonitor sets them; the dashboards are asked for all releases, by what also fits none of these labels.
SCRAPED = {"namespace": NAMESPACE, "ray_io_cluster": f"{RELEASE}-manta-abcde", "ray_io_node_type": "head"}
VARIABLES = {"namespace": ".*", "cluster": ".*", "model": ".*", "variant": ".*", "__rate_interval": "2m"}
EXCUSED = {
    "ray_vllm_": "engines are simulated, and these are vLLM's own",
    "ray_manta_replica_start_seconds": "simulated engines have no phases to start in",
    "ray_manta_replica_download_bytes": "simulated engines fetch no weights",
    "ray_node_gpus_": "the machine may have no GPU",
    "ray_node_gram_": "the machine may have no GPU",
}


@dataclass(frozen=True, slots=True)
class Observed:
    """A Prometheus that has seen a platform under load, and what the timed clients saw."""

    prometheus: Prometheus
    timed: Part
    driven_s: float  # Unix time at which everybody was asked for the last time


def rules() -> list[dict[str, Any]]:
    (rule,) = of_kind("PrometheusRule", {"prometheusRule": {"enabled": True}})
    found: list[dict[str, Any]] = rule["spec"]["groups"]
    return found


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(CHART.glob("files/dashboards/*.json"))]


def fill(platform: Platform, config: dict[str, Any], folder: Path) -> None:
    """Ingest a document for the pipeline."""
    folder.mkdir()
    (folder / "penguins.md").write_text("# Penguins\n\nPenguins live in the Antarctic.\n", encoding="utf-8")
    report = ingest.run(IngestOptions(folder, "birds"), PlatformConfig.model_validate(config), embedder=None, url=platform.url)
    assert (report.added, report.failed) == (1, 0)


def time_streams(url: str, folder: Path) -> Part:
    """Return what clients saw of a model that only they ask."""
    scenario = timed_scenario(url)
    seen = runner.run(FoundScenario(scenario, folder), csv=None, on_progress=lambda _: None)
    return figures(scenario, seen).total


def wait_counted(prometheus: Prometheus, count: int) -> None:
    """Wait until Prometheus knows of so many timed streams; it counts those as well that were open when the run was over."""
    expr = 'sum(ray_manta_time_to_first_token_seconds_count{model="timed"})'
    deadline_s = time.monotonic() + 90
    while not (seen := prometheus.query(expr)) or float(seen[0]["value"][1]) < count:
        assert time.monotonic() < deadline_s, f"{count} streams were timed; Prometheus has {seen}"
        time.sleep(1)


@pytest.fixture(scope="module")
def observed(bare_platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs prometheus (Debian's package prometheus)")
    folder = tmp_path_factory.mktemp("observed")
    config = everything(folder / "lance")
    bare_platform.deploy(config)
    fill(bare_platform, config, folder / "documents")
    (folder / "prometheus").mkdir()
    prometheus = Prometheus(program, folder / "prometheus")
    target = bare_platform.cluster.metrics_url.removeprefix("http://").removesuffix("/metrics")
    prometheus.configure(target, labels=SCRAPED, groups=rules())
    with prometheus:
        asyncio.run(drive(bare_platform.url, for_s=MIXED_S))
        driven_s = time.time()
        timed = time_streams(bare_platform.url, folder)
        wait_counted(prometheus, timed.times["ttft"].count)
        time.sleep(SETTLE_S)
        yield Observed(prometheus, timed, driven_s)


def test_every_panel_rule_and_alert_has_data(observed: Observed) -> None:
    asked = [*questions(dashboards(), rules(), variables=VARIABLES)]
    assert len(asked) > 150

    def ask(expr: str) -> list[Any]:
        # Some is shown only while there is traffic, such as the evidence that comes out of it.
        return observed.prometheus.query(expr) or observed.prometheus.query(expr, at_s=observed.driven_s)

    assert unanswered(asked, ask, excused=EXCUSED) == []


def test_every_rule_can_be_evaluated(observed: Observed) -> None:
    assert observed.prometheus.faulty_rules() == {}


def test_a_model_that_answers_nobody_is_noticed_and_no_other(observed: Observed) -> None:
    # Pending: it takes five minutes to fire. Afterwards nobody asks the others either.
    pending = observed.prometheus.query('ALERTS{alertname="MantaNothingAnswered"}', at_s=observed.driven_s)
    assert [series["metric"]["model"] for series in pending] == ["ill"]


def test_panels_that_nothing_answers_are_few(observed: Observed) -> None:
    asked = [*questions(dashboards(), rules(), variables=VARIABLES)]
    left_out = [place for place in asked if any(name in place.expr for name in EXCUSED)]
    assert len(left_out) <= 8
    assert [name for name in EXCUSED if not any(name in place.expr for place in left_out)] == []


@pytest.mark.parametrize(
    ("metric", "figure"), [("time_to_first_token", "ttft"), ("inter_token", "gap")], ids=["first-token", "between-tokens"]
)
@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_durations_agree_with_what_clients_saw(observed: Observed, metric: str, figure: str, quantile: float) -> None:
    buckets = f'sum by (le) (ray_manta_{metric}_seconds_bucket{{model="timed"}})'
    told_s = observed.prometheus.value(f"histogram_quantile({quantile}, {buckets})")
    times = observed.timed.times[figure]
    saw_s = times.p50_s if quantile == 0.5 else times.p95_s
    print(f"{figure} p{100 * quantile:g}: metrics {told_s:.4f} s, clients {saw_s:.4f} s, {times.count} times")  # noqa: T201
    assert told_s == pytest.approx(saw_s, rel=AGREEMENT)
