"""Worker groups hold what placement reserves, in an order that an upgrade can keep."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from deployments.llm.placement import placement_of
from serve_app.config import VariantConfig
from tests.chart.helm import CHART, Json, ci_values, rayservice

pytestmark = pytest.mark.chart

CPU: Json = {"name": "tiny", "variants": [{"name": "stable", "source": "org/tiny"}]}


def variant(accelerator: str | None = "L40S", tp: int = 1, pp: int = 1, **more: Any) -> Json:
    engine = {"tensor_parallel_size": tp, "pipeline_parallel_size": pp}
    return {"name": "stable", "source": "org/m", "accelerator": accelerator, "engine": engine, **more}


def model(name: str, **more: Any) -> Json:
    return {"name": name, "variants": [variant(**more)]}


def groups(*models: Json, **values: Any) -> dict[str, Json]:
    """Return the worker groups by name."""
    found = rayservice({"platform": {"models": list(models)}, **values})
    return {group["groupName"]: group for group in found["spec"]["rayClusterConfig"]["workerGroupSpecs"]}


def limits(group: Json) -> Json:
    found: Json = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    return found


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (4, 1), (8, 1), (8, 2), (2, 4)])
@pytest.mark.parametrize("accelerator", ["L40S", "H100", "A100-80G", "any"])
def test_a_replica_fits_the_nodes_of_its_group_and_leaves_nothing_over(accelerator: str, tp: int, pp: int) -> None:
    made = variant(accelerator, tp, pp)
    (group,) = [g for name, g in groups({"name": "chat", "variants": [made]}).items() if name != "cpu"]
    placement = placement_of(VariantConfig.model_validate(made))
    node = {name: float(amount) for name, amount in group["resources"].items()}
    assert placement.unfit([node] * group["numOfHosts"]) is None
    assert placement.stages == group["numOfHosts"]
    assert node["GPU"] * group["numOfHosts"] == tp * pp == placement.stages * placement.bundle["GPU"]
    assert set(placement.bundle) <= set(node)
    assert limits(group)["nvidia.com/gpu"] == str(tp)
    if pp > 1:
        assert placement.unfit([node] * (group["numOfHosts"] - 1)) is not None


def test_models_of_one_shape_share_a_group_and_their_replicas_add_up() -> None:
    first = model("a", autoscaling={"min_replicas": 1, "max_replicas": 4})
    found = groups(first, model("b", replicas=2), model("c", accelerator="H100"))
    assert {name: (g["minReplicas"], g["maxReplicas"]) for name, g in found.items() if name != "cpu"} == {
        "gpu-l40s-1x1": (3, 6),
        "gpu-h100-1x1": (1, 1),
    }


def test_groups_come_in_the_order_of_the_models() -> None:
    names = list(groups(CPU, model("a", accelerator="T4"), model("b", accelerator="A100"), model("c", tp=2)))
    assert names == ["cpu", "gpu-t4-1x1", "gpu-a100-1x1", "gpu-l40s-2x1"]


def test_a_model_that_is_added_last_appends_its_group() -> None:
    before, after = groups(model("a")), groups(model("a"), model("b", accelerator="H100", tp=8))
    assert list(after)[: len(before)] == list(before)
    assert {name: after[name] for name in before} == before


def test_an_embedder_on_an_accelerator_has_room_too() -> None:
    values = {
        "platform": {"models": [CPU], "embedders": [{"name": "e", "source": "org/e", "accelerator": "L4", "replicas": 2}]}
    }
    found = {g["groupName"]: g for g in rayservice(values)["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    assert (found["gpu-l4-1x1"]["minReplicas"], found["gpu-l4-1x1"]["resources"]["accelerator_type:L4"]) == (2, "1")


def test_cpu_nodes_are_enough_for_all_that_runs_on_cpu() -> None:
    tiny = copy.deepcopy(CPU)
    tiny["variants"][0] |= {"cpus": 3, "autoscaling": {"min_replicas": 2, "max_replicas": 8}}
    cpu = groups(tiny)["cpu"]
    # Rollouts 0.1, limits 0.1, Routers 2 x 1, replicas 2 or 8 x 3, on nodes of 4
    assert (cpu["minReplicas"], cpu["maxReplicas"]) == (3, 7)


def test_there_are_as_many_cpu_nodes_as_replicas_that_share_none() -> None:
    tiny = model("tiny", accelerator=None, max_replicas_per_node=2, autoscaling={"min_replicas": 1, "max_replicas": 15})
    cpu = groups(tiny, platform={"models": [tiny], "router": {"max_replicas_per_node": 1}}, cpuWorkers={"cpus": 64})["cpu"]
    assert (cpu["minReplicas"], cpu["maxReplicas"]) == (2, 8 + 2)  # and a fifth more, for what an update starts


def test_without_the_autoscaler_every_group_has_its_most_pods() -> None:
    scaled = model("a", autoscaling={"min_replicas": 0, "max_replicas": 3})
    found = groups(scaled, autoscaler={"enabled": False})
    assert {name: g["replicas"] for name, g in found.items()} == {"cpu": 4, "gpu-l40s-1x1": 3}


def test_written_groups_are_taken_as_they_are() -> None:
    found = rayservice(ci_values(CHART / "ci" / "keys-and-limits-values.yaml"))["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert [(g["groupName"], g["resources"], g["minReplicas"], g["maxReplicas"]) for g in found] == [
        ("cpu", {"CPU": "8"}, 1, 3),
        ("l40s", {"CPU": "32", "GPU": "4", "accelerator_type:L40S": "1"}, 1, 4),
        ("a10g", {"CPU": "8", "GPU": "1", "accelerator_type:A10G": "1"}, 0, 8),
    ]
    l40s = found[1]["template"]["spec"]
    assert (l40s["nodeSelector"], l40s["priorityClassName"], found[1]["idleTimeoutSeconds"]) == (
        {"pool": "l40s"},
        "serving",
        900,
    )


def test_nodes_of_an_accelerator_are_chosen_by_its_own_labels() -> None:
    nodes = [{"type": "H100", "nodeSelector": {"pool": "h100"}, "tolerations": [{"key": "h100", "operator": "Exists"}]}]
    found = groups(model("a"), model("b", accelerator="H100"), acceleratorNodes=nodes)
    h100, l40s = (found[name]["template"]["spec"] for name in ("gpu-h100-1x1", "gpu-l40s-1x1"))
    assert (h100["nodeSelector"], h100["tolerations"][0]["key"]) == ({"pool": "h100"}, "h100")
    assert "nodeSelector" not in l40s
    assert l40s["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_another_vendor_is_another_resource() -> None:
    nodes = [{"type": "AMD-Instinct-MI300X-OAM", "resourceName": "amd.com/gpu"}]
    found = groups(model("a", accelerator="AMD-Instinct-MI300X-OAM", tp=2), acceleratorNodes=nodes)
    assert limits(found["gpu-amd-instinct-mi300x-oam-2x1"])["amd.com/gpu"] == "2"
