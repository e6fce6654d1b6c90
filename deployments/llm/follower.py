"""A stage that is not the first: vLLM's executor without a scheduler, over this node's ranks."""

from __future__ import annotations

import logging

from deployments.llm.stages import Rendezvous
from deployments.llm.vllm import engine_arguments, set_environment
from serve_app.config import VariantConfig

logger = logging.getLogger("ray.serve")


def follow(model: str, config: VariantConfig, rendezvous: Rendezvous, *, folder: str, host: str) -> str:
    """Run this stage's ranks until one of them ends; return which.

    ``folder``: the weights on this node; ``host``: its address for the other stages. Raises what vLLM says of a stage that
    cannot start.
    """
    set_environment(config, host=host)
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    args = engine_arguments(model, folder, engine=config.engine, rendezvous=rendezvous)
    engine_args = AsyncEngineArgs.from_cli_args(args)
    engine_config = engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER, headless=True)
    executor = MultiprocExecutor(engine_config, monitor_workers=False)
    logger.info("stage %d of %d runs for %s:%d", rendezvous.stage, rendezvous.stages, rendezvous.host, rendezvous.port)
    executor.start_worker_monitor(inline=True)  # returns when a rank has ended, and has ended the others by then
    return "one of its ranks died"
