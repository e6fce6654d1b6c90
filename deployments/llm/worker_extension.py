"""What we add to vLLM's workers (``--worker-extension-cls``); it runs in the process of each rank."""

from __future__ import annotations

from typing import Any


class StageExtension:
    """Mixed into the workers of a replica that has several stages."""

    model_runner: Any

    def prepare_stage(self) -> None:
        """Allocate where a later stage receives the activations of the one before.

        vLLM does it in the dry run that measures memory or compiles. On CPU with ``enforce_eager`` 0.29 has no such run, and
        the first request would fail (``assert self.intermediate_tensors is not None``).
        """
        from vllm.distributed import get_pp_group

        runner = self.model_runner
        if get_pp_group().is_first_rank or runner.intermediate_tensors is not None:
            return
        runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
        )
