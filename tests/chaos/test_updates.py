"""Every app is replaced by another version while thousands of requests go on."""

from __future__ import annotations

import time

import pytest

from tests.chaos import platform
from tests.chaos.cluster import ChaosCluster
from tests.chaos.faults import PARTS, Note, watched
from tests.chaos.steady import SteadyLoad, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

REQUESTS = 10_000


def test_an_update_of_every_app_costs_no_request(cluster: ChaosCluster, load: SteadyLoad, note: Note) -> None:
    before = {part: set(cluster.running(*part)) for part in PARTS.values()}

    def are_all_new() -> bool:
        cluster.wait_running()
        return not any(before[part] & set(cluster.running(*part)) for part in before)

    began_s = time.monotonic()
    cluster.deploy(platform.updated(cluster.deployed))
    back_s = wait_until(are_all_new, within_s=600, every_s=1.0)
    wait_until(lambda: len(load.records(began_s)) >= REQUESTS, within_s=300, every_s=2.0)
    effect = watched(load, "update of every app", began_s=began_s, back_s=back_s, note=note)
    assert effect.requests >= REQUESTS, effect
    assert effect.failed == effect.broken == effect.refused == 0, effect
