"""A tensor-parallel rank that is killed in the midst of a stream: its client is told, and the whole replica is replaced."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.load import Load
from tests.e2e.replacing import ready, title, wait_until
from tests.e2e.two_nodes import EnginePlatform, engine_platform, engine_processes, ranks

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(3600)]

# Two ranks that wait for each other without sleeping are slow where other processes share their cores.
FIRST_TOKEN_WITHIN_S = 600.0
NOTICED_WITHIN_S = 30.0
REPLACED_WITHIN_S = 900.0


@pytest.fixture(scope="module")
def platform() -> Iterator[EnginePlatform]:
    with engine_platform({"tensor_parallel_size": 2}) as made:
        assert len(ranks()) == 2
        yield made


def test_a_replica_that_loses_a_tensor_parallel_rank_is_replaced_as_a_whole(
    platform: EnginePlatform, record_property: Callable[[str, object], None]
) -> None:
    before, engine = ready(platform), set(engine_processes())
    assert (len(before), len(engine)) == (1, 3)  # a scheduler, two ranks
    with Load(platform.url, model="chat", clients=1, max_tokens=400) as load:
        wait_until(lambda: load.open_tokens() > 0, within_s=FIRST_TOKEN_WITHIN_S)
        load.end()
        max(ranks(), key=title).send_signal(signal.SIGKILL)
        wait_until(lambda: load.ends["broken"] == 1, within_s=NOTICED_WITHIN_S)
        wait_until(lambda: not ready(platform) & before, within_s=NOTICED_WITHIN_S)
    wait_until(lambda: len(ready(platform) - before) == 1, within_s=REPLACED_WITHIN_S)
    record_property("streams", dict(load.ends))
    print("streams:", dict(load.ends))  # noqa: T201  # the closing figures
    assert load.ends["silent"] == 0, load.refusals
    wait_until(lambda: len(engine_processes()) == 3, within_s=60)
    assert not engine & set(engine_processes())
    [tokens] = platform.complete("chat", ["What does os.getcwd do?"], max_tokens=2)
    assert len(tokens) == 2
