"""What KubeRay 1.7 and Ray Serve 2.60 do with an edit, told from a chart's manifest before and after it.

helm get manifest RELEASE > old.yaml
helm template RELEASE helm/manta -f my-values.yaml > new.yaml
python -m scripts.chart_effects old.yaml new.yaml
"""

from __future__ import annotations

import copy
import enum
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scripts.serve_effects import ServeEffect, serve_effect

Json = dict[str, Any]
SERVICE = "RayService"
# What the operator leaves out of the hash by which it compares a running cluster with the RayService.
_GROUP_BOUNDS = ("replicas", "minReplicas", "maxReplicas")
_POD_LATE = ("tolerations", "schedulingGates")
_CLUSTER_FREE = ("upgradeStrategy", "suspend")


class Cluster(enum.StrEnum):
    """What becomes of the running Ray cluster."""

    KEPT = "stays as it is"
    GROWS = "stays, and gets the worker groups that are new at the end of the list"
    REPLACED = "is replaced: a second one starts beside it, and traffic moves when all of it runs"
    STALE = "stays as it is, since `upgrade.type` is None: the edit waits for a cluster made by hand"


@dataclass(frozen=True, slots=True)
class Effect:
    """What an edit does."""

    cluster: Cluster = Cluster.KEPT
    late: tuple[str, ...] = ()  # fields that the running cluster does not get, only the next one
    serve: ServeEffect = field(default_factory=ServeEffect)  # of the configuration that Serve is sent
    objects: tuple[str, ...] = ()  # Kubernetes objects beside the RayService that come, go or change

    @property
    def is_sent(self) -> bool:
        """Whether the running Serve gets the new configuration."""
        return self.serve.is_changed and self.cluster is not Cluster.REPLACED

    @property
    def is_in_place(self) -> bool:
        """Whether no pod and no replica that runs is restarted or stopped."""
        return self.cluster in (Cluster.KEPT, Cluster.GROWS) and not (self.serve.restarted or self.serve.removed)


def effect(old: Iterable[Json], new: Iterable[Json]) -> Effect:
    """Return what an upgrade from the old objects to the new ones does. Hooks count for nothing: they run by themselves."""
    before, after = _by_name(old), _by_name(new)
    key_before, key_after = _service(before), _service(after)
    if key_before != key_after:
        raise ValueError(f"the RayService is {key_after[1]} and was {key_before[1]}: that is another installation")
    service_before, service_after = before.pop(key_before), after.pop(key_after)
    cluster, late = _cluster(service_before["spec"], service_after["spec"])
    texts = [yaml.load(each["spec"]["serveConfigV2"], Loader=yaml.CSafeLoader) for each in (service_before, service_after)]
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return Effect(cluster, late, serve_effect(*texts), tuple(" ".join(key) for key in changed))


def _by_name(objects: Iterable[Json]) -> dict[tuple[str, str], Json]:
    kept = (each for each in objects if "helm.sh/hook" not in each["metadata"].get("annotations", {}))
    return {(each["kind"], each["metadata"]["name"]): _without_labels(_pruned(each)) for each in kept}


def _pruned(node: Any) -> Any:
    """Return an object as Kubernetes' API stores it: a field that is null is a field that is not there."""
    if isinstance(node, list):
        return [_pruned(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {key: _pruned(part) for key, part in node.items() if part is not None}


def _without_labels(manifest: Json) -> Json:
    """Return an object without its own labels: no controller acts on them, and the chart's version is among them."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key not in ("labels", "annotations")}
    return {**manifest, "metadata": metadata}


def _service(objects: dict[tuple[str, str], Json]) -> tuple[str, str]:
    found = [key for key in objects if key[0] == SERVICE]
    if len(found) != 1:
        raise ValueError(f"a manifest of the chart has one {SERVICE}, this one has {len(found)}")
    return found[0]


def _cluster(old: Json, new: Json) -> tuple[Cluster, tuple[str, ...]]:
    before, after = old["rayClusterConfig"], new["rayClusterConfig"]
    count = len(before["workerGroupSpecs"])
    grows = len(after["workerGroupSpecs"]) > count
    if _hashed(before) != _hashed(after, groups=count if grows else None):
        # Whatever it is, the next cluster has it.
        return (Cluster.STALE if new["upgradeStrategy"]["type"] == "None" else Cluster.REPLACED), ()
    late = [] if old.get("serveService") == new.get("serveService") else ["serveService"]
    # A cluster that grows is written anew from the RayService, other bounds and tolerations included; pods that run stay.
    late += [] if grows else _late_fields(before, after)
    return (Cluster.GROWS if grows else Cluster.KEPT), tuple(late)


def _hashed(cluster: Json, *, groups: int | None = None) -> Json:
    """Return what the operator's hash is made of, with the first worker groups only, where a number is given."""
    made = copy.deepcopy({key: value for key, value in cluster.items() if key not in _CLUSTER_FREE})
    made["workerGroupSpecs"] = made["workerGroupSpecs"][:groups]
    for group in made["workerGroupSpecs"]:
        for key in _GROUP_BOUNDS:
            group.pop(key, None)
        group.get("scaleStrategy", {}).pop("workersToDelete", None)
    for group in (made["headGroupSpec"], *made["workerGroupSpecs"]):
        for key in _POD_LATE:
            group["template"]["spec"].pop(key, None)
    return made


def _late_fields(old: Json, new: Json) -> Iterator[str]:
    pairs = [("head", old["headGroupSpec"], new["headGroupSpec"])]
    pairs += [(a["groupName"], a, b) for a, b in zip(old["workerGroupSpecs"], new["workerGroupSpecs"], strict=True)]
    for name, before, after in pairs:
        # `replicas` is the autoscaler's once the cluster runs.
        yield from (f"{name}.{key}" for key in _GROUP_BOUNDS[1:] if before.get(key) != after.get(key))
        specs = before["template"]["spec"], after["template"]["spec"]
        yield from (f"{name}.{key}" for key in _POD_LATE if specs[0].get(key) != specs[1].get(key))


def lines(found: Effect) -> Iterator[str]:
    """Yield an effect in words."""
    yield f"cluster: {found.cluster}"
    if found.late:
        yield f"not before the next cluster: {', '.join(found.late)}"
    if found.serve.is_changed and not found.is_sent:
        yield "Serve: only the second cluster gets the new configuration; the first one gets no change until the switch"
    elif found.serve.is_changed:
        yield from (f"Serve: {line}" for line in found.serve.lines())
    if found.objects:
        yield f"objects: {', '.join(found.objects)}"


def main(arguments: list[str]) -> int:
    """Print what an upgrade does; return 0 when it arrives and stops nothing that runs, 3 otherwise, 2 for wrong use."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    old, new = ([*_read(Path(name))] for name in arguments)
    found = effect(old, new)
    print("\n".join(lines(found)))
    return 0 if found.is_in_place else 3


def _read(path: Path) -> Iterator[Json]:
    yield from (each for each in yaml.load_all(path.read_text(encoding="utf-8"), yaml.CSafeLoader) if each)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
