"""vLLM's own metrics, as they are shown on Ray's metrics port: `ray_vllm_*`, the names that Ray's dashboards know.

vLLM has a logger of its own for Ray's metrics. It is not used: vLLM leaves out its Prometheus metrics for it, so that the
replica's `/metrics` would be empty, and it tells Ray every token's gap one by one while the engine runs. Here the
metrics that vLLM keeps anyway are read once in a while, whatever the load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from deployments.ray_export import Families

PREFIX = "vllm:"
# Its labels are the adapters that run and that wait: a series for each combination, and none ever goes.
LEFT_OUT = frozenset({"vllm:lora_requests_info"})


class VllmFamilies:
    """vLLM's metrics in this process with more labels, which say whose they are.

    ``source`` is where vLLM registers them: the registry that all of a process share.
    """

    def __init__(self, labels: Mapping[str, str], *, source: Families = REGISTRY) -> None:
        self._labels = dict(labels)
        self._source = source

    def collect(self) -> Iterator[Family]:
        """Yield them as they stand now."""
        for family in self._source.collect():
            if family.name.startswith(PREFIX) and family.name not in LEFT_OUT:
                named = Family(_name(family.name), family.documentation, family.type)
                named.samples = [self._labelled(sample) for sample in family.samples]
                yield named

    def _labelled(self, sample: Sample) -> Sample:
        return Sample(_name(sample.name), {**sample.labels, **self._labels}, sample.value)


def _name(name: str) -> str:
    """Return a name without the colon, which Ray does not take."""
    return name.replace(":", "_")
