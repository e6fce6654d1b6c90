"""Writes helm/manta/README.md: what the chart is, and a table of its values from the comments in values.yaml.

python -m scripts.chart_docs           rewrite the file
python -m scripts.chart_docs --check   exit with 1 when the file is out of date
"""

from __future__ import annotations

import json
import sys

from scripts.chart_values import CHART, documented, leaves
from scripts.generated import settle

FILE = CHART / "README.md"
COMMAND = "python -m scripts.chart_docs"
LONGEST = 60

INTRO = f"""<!-- Written by `{COMMAND}` from the comments in values.yaml and the text in the script. -->
# Manta

Multi-model LLM and RAG serving on Ray Serve and vLLM, as one KubeRay RayService. `platform` is the document that `manta
run` takes ([docs/configuration.md](../../docs/configuration.md)); everything else says how it lies on the cluster.

## Before you install

- Kubernetes 1.29 or newer, and the KubeRay operator 1.7 or newer (older ones leave gRPC out of the Service). None of
  its alpha gates is needed. The operator is not a part of the chart.
- A Secret with the token between Routers and replicas, one with the callers' keys, and one with a key for `helm test`:

```
kubectl create secret generic manta-internal-token --from-literal=token="$(openssl rand -hex 32)"
manta keys create ops --admin --file keys.yaml      # prints the key, once
kubectl create secret generic manta-api-keys --from-file=keys.yaml
kubectl create secret generic manta-test-key --from-literal=key=KEY
helm install manta ./helm/manta -f my-values.yaml
kubectl wait --for=condition=Ready rayservice/manta --timeout=30m
helm test manta --logs --timeout 10m
```

No image is published and the chart has not been on a real cluster yet:
[what was run, and what never was](../../docs/operations/install.md#what-was-run-and-what-never-was).

## What it makes

- The RayService: a head that serves nothing, and worker groups. Without `workerGroups` they follow from the models: one for
  CPU, and one for each (accelerator, tensor_parallel_size, pipeline_parallel_size), with as many accelerators in a pod as
  the tensor parallel size, and as many pods in a replica as the pipeline parallel size. Groups appear in the order of the
  models. Write `workerGroups` where models come and go, and only append to it: another order, or a group that goes, is a
  second cluster.
- `<name>-serve-svc`, the stable Service of REST and gRPC: KubeRay keeps it on the active cluster. Ingress, HTTPRoute and
  GRPCRoute lead to it.
- Network policy, disruption budgets, service accounts, volumes, and, by switch, a PodMonitor, alerts, dashboards and a
  Redis.
- Tests: chat, stream, RAG, gRPC, and that traffic is split as declared.

What it does not make: a vector database (the store is LanceDB, a library with its data in `s3://` or on a volume; there is no
adapter for Qdrant), the operator, Prometheus, Grafana, a Gateway. With `upgrade.type: NewClusterWithIncrementalUpgrade` KubeRay
makes a Gateway `<name>-gateway`, which then is the way in.

Chart.yaml names no `home`, `sources` or `maintainers`, since the chart is published nowhere yet: whoever publishes it fills
them in.

## What changes in place

Everything under `platform` goes into `serveConfigV2`, and nothing of it into a pod: weights, rollouts, limits, keys, prompts
and replica counts change without a restart, and another source or engine restarts that variant only. Where `workerGroups` is
empty, models also decide which groups there are: a kind of node that is new and comes last is added in place, another order
or size is a second cluster. Bounds of a group's replicas take effect with the next cluster (kuberay#4568). Images, `pod`,
`head` and resources build a second cluster, which takes over when all of it runs.
[What an edit does](../../docs/operations/upgrades.md#what-an-edit-does) has every kind of edit in a table, made by rendering
each.

Examples: [ci/](ci/). Messages of wrong values: [docs/operations/values-errors.md](../../docs/operations/values-errors.md).

## Values

| key | default | what it is |
|---|---|---|
"""


def page() -> str:
    """Return the whole page."""
    rows = (f"| `{each.name}` | {shown(each.default)} | {escaped(each.description)} |" for each in leaves(documented()))
    return INTRO + "\n".join(rows) + "\n"


def shown(default: object) -> str:
    """Return a default as YAML in one line; long ones are left to values.yaml."""
    text = json.dumps(default)
    return f"`{escaped(text)}`" if len(text) <= LONGEST else "see values.yaml"


def escaped(text: str) -> str:
    """Return a text for a table's cell."""
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the file, or compare it; return the exit code."""
    return settle(FILE, page(), command=COMMAND, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
