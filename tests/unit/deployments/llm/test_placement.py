from __future__ import annotations

import pytest

from deployments.llm.placement import Placement, actor_options, placement_of
from serve_app.config import EngineConfig, VariantConfig


def variant(ranks: int, stages: int, *, accelerator: str | None, cpus: float = 2.0) -> VariantConfig:
    engine = EngineConfig(tensor_parallel_size=ranks, pipeline_parallel_size=stages)
    return VariantConfig(name="stable", source="org/model", engine=engine, accelerator=accelerator, cpus=cpus)


def stage(gpus: int, accelerator: str) -> dict[str, float]:
    return {"CPU": 2.0 * gpus, "GPU": float(gpus), f"accelerator_type:{accelerator}": 0.001}


@pytest.mark.parametrize(
    ("ranks", "stages", "accelerator", "bundles"),
    [
        pytest.param(1, 1, "L4", [stage(1, "L4")], id="1x1"),
        pytest.param(4, 1, "L40S", [stage(4, "L40S")], id="4x1"),
        pytest.param(8, 1, "H100", [stage(8, "H100")], id="8x1"),
        pytest.param(8, 2, "H100", [stage(8, "H100")] * 2, id="8x2"),
        pytest.param(2, 4, "A10G", [stage(2, "A10G")] * 4, id="2x4"),
    ],
)
def test_a_stage_is_one_bundle_so_its_ranks_are_on_one_node(
    ranks: int, stages: int, accelerator: str, bundles: list[dict[str, float]]
) -> None:
    placement = placement_of(variant(ranks, stages, accelerator=accelerator))
    assert [placement.bundle] * placement.stages == bundles
    options = placement.options()
    replica = {"num_cpus": 2.0 * ranks, "num_gpus": ranks, "accelerator_type": accelerator}
    spread = {"placement_group_bundles": bundles, "placement_group_strategy": "PACK"} if stages > 1 else {}
    assert options == {"ray_actor_options": replica, **spread}


def test_any_accelerator_names_no_type_and_none_takes_only_cores() -> None:
    assert placement_of(variant(2, 1, accelerator="any")).bundle == {"CPU": 4.0, "GPU": 2.0}
    assert placement_of(variant(2, 2, accelerator=None)).options() == {
        "ray_actor_options": {"num_cpus": 4.0},
        "placement_group_bundles": [{"CPU": 4.0}, {"CPU": 4.0}],
        "placement_group_strategy": "PACK",
    }


def test_a_replica_of_one_process_takes_one_accelerator() -> None:
    assert actor_options(cpus=2.0, accelerator=None) == {"num_cpus": 2.0}
    assert actor_options(cpus=2.0, accelerator="any") == {"num_cpus": 2.0, "num_gpus": 1}
    assert actor_options(cpus=2.0, accelerator="L40S") == {"num_cpus": 2.0, "num_gpus": 1, "accelerator_type": "L40S"}


NODE = {"CPU": 16.0, "GPU": 4.0, "accelerator_type:L40S": 1.0, "memory": 1e11}


@pytest.mark.parametrize(
    ("placement", "nodes", "said"),
    [
        pytest.param(Placement(1, 8, 4, "L40S"), [NODE], None, id="fits"),
        pytest.param(Placement(2, 8, 2, "L40S"), [NODE], None, id="two-stages-on-one-node"),
        pytest.param(Placement(2, 8, 4, "L40S"), [NODE, NODE], None, id="two-stages-on-two-nodes"),
        pytest.param(
            Placement(1, 8, 8, "L40S"),
            [NODE, NODE],
            "it needs a node with 8 L40S and 8 CPU, and there is none",
            id="node-small",
        ),
        pytest.param(
            Placement(1, 8, 1, "H100"), [NODE], "it needs a node with 1 H100 and 8 CPU, and there is none", id="another-type"
        ),
        pytest.param(
            Placement(3, 2, 4, None),
            [NODE, NODE],
            "it needs room for 3 stages, each 4 accelerators and 2 CPU on one node; there is room for 2",
            id="too-few-nodes",
        ),
        pytest.param(Placement(1, 17, 0), [NODE], "it needs a node with 17 CPU, and there is none", id="cores"),
    ],
)
def test_what_no_node_can_hold_says_what_is_missing(
    placement: Placement, nodes: list[dict[str, float]], said: str | None
) -> None:
    assert placement.unfit(nodes) == said
