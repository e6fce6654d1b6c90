"""A rank, a stage or a replica that is killed under load: the replica is replaced as a whole, and nothing stays behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.e2e.load import Load
from tests.e2e.replacing import placement_groups, ready, title, wait_until
from tests.e2e.two_nodes import EnginePlatform, engine_platform, engine_processes, ranks

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(2400)]

REPLACED_WITHIN_S = 420.0


@pytest.fixture(scope="module")
def platform() -> Iterator[EnginePlatform]:
    with engine_platform({"pipeline_parallel_size": 2}, replicas=2) as made:
        assert len(ranks()) == 4
        yield made


def rank_of_a_later_stage() -> psutil.Process:
    return next(rank for rank in ranks() if "StageActor" in title(rank.parent()))


def rank_of_the_first_stage() -> psutil.Process:
    return next(rank for rank in ranks() if "EngineCore" in title(rank.parent()))


def replica() -> psutil.Process:
    return next(process for process in psutil.process_iter() if "llm.chat.stable:LLM" in title(process))


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(rank_of_a_later_stage, id="rank-of-a-later-stage"),
        pytest.param(rank_of_the_first_stage, id="rank-of-the-first-stage"),
        pytest.param(replica, id="replica"),
    ],
)
def test_what_loses_a_process_is_replaced_while_the_other_replica_serves(
    platform: EnginePlatform, victim: Callable[[], psutil.Process], record_property: Callable[[str, object], None]
) -> None:
    before = ready(platform)
    assert len(before) == 2
    engines = set(engine_processes())
    with Load(platform.url, model="chat", clients=6, max_tokens=40) as load:
        wait_until(lambda: load.ends["whole"] >= 12, within_s=120)
        victim().send_signal(signal.SIGKILL)
        wait_until(lambda: len(ready(platform) & before) == 1, within_s=30)
        served = load.ends["whole"]
        wait_until(lambda: len(ready(platform) - before) == 1, within_s=REPLACED_WITHIN_S)
        assert load.ends["whole"] > served
    record_property("streams", dict(load.ends))
    print("streams:", dict(load.ends))  # noqa: T201  # the closing figures
    assert load.ends["refused"] == 0, load.refusals
    assert load.ends["silent"] == 0
    assert load.ends["broken"] <= 6  # those that the dead replica had begun
    wait_until(lambda: len(engine_processes()) == 6, within_s=60)  # two schedulers, four ranks
    assert len(engines & set(engine_processes())) == 3  # the other replica's, untouched
    assert all(title(process.parent()) for process in engine_processes())
    wait_until(lambda: placement_groups(platform) == 2, within_s=60)
