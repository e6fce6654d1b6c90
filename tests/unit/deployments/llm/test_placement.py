from __future__ import annotations

from deployments.llm.placement import actor_options


def test_a_replica_reserves_cores_and_only_with_an_accelerator_gpus() -> None:
    assert actor_options(cpus=2.0, accelerator=None, ranks=2) == {"num_cpus": 2.0}
    assert actor_options(cpus=2.0, accelerator="L40S", ranks=2) == {
        "num_cpus": 2.0,
        "num_gpus": 2,
        "accelerator_type": "L40S",
    }
