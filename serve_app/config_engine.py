"""The engine inside an LLM replica: its parallelism and its options."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from serve_app.config_fields import Config
from serve_app.config_rules import refuse

SET_BY_MANTA = {
    "model": "set by the variant's `source`",
    "served_model_name": "set by the model's `name`",
    "host": "set by the platform: a replica picks its own address",
    "port": "set by the platform: a replica picks its own port",
    "api_key": "set by the platform: replicas accept its internal token only",
}


class SimulatedFaults(Config):
    """What is wrong with a simulated engine, to see what a rollout makes of it."""

    error_ratio: float = Field(0.0, ge=0, le=1, description="Share of requests that are answered with status 500.")
    hang_ratio: float = Field(0.0, ge=0, le=1, description="Share of requests that are never answered.")
    crash_after_requests: int | None = Field(None, ge=1, description="Requests after which the replica's process dies.")
    fails_to_start: bool = Field(False, description="Whether no replica ever starts.")


class SimulatedLatency(Config):
    """Latency model of the simulated engine."""

    prefill_s_per_token: float = Field(0.0001, ge=0, description="Seconds of prefill per prompt token.")
    decode_s_per_token: float = Field(0.01, ge=0, description="Seconds between generated tokens.")
    slots: int = Field(64, ge=1, description="Requests decoded at the same time; further ones wait.")
    start_s: float = Field(0.0, ge=0, description="Seconds a replica takes to start.")
    faults: SimulatedFaults = Field(default=SimulatedFaults(), description="Faults on purpose.")


class LoraEngineConfig(Config):
    """Room for LoRA adapters in an engine."""

    max_loras: int = Field(4, ge=1, description="Adapters whose requests are decoded in one step; others wait.")
    max_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = Field(16, description="Largest rank of an adapter.")
    max_loaded: int = Field(
        16, ge=1, description="Adapters that a replica keeps in memory; the one unused for longest makes room."
    )

    @model_validator(mode="after")
    def _loaded_holds_running(self) -> Self:
        if self.max_loaded < self.max_loras:
            message = f"{self.max_loaded} loaded adapters are fewer than the {self.max_loras} of one step (max_loras); raise it"
            refuse([(("max_loaded",), message)])
        return self


class EngineConfig(Config):
    """The engine inside an LLM replica."""

    kind: Literal["vllm", "simulated"] = Field(
        "vllm", description="`simulated` is a latency model for load and scaling studies; it generates no real text."
    )
    tensor_parallel_size: int = Field(1, ge=1, description="Ranks that share each layer, inside one node.")
    pipeline_parallel_size: int = Field(1, ge=1, description="Ranks that share the layers, across nodes if need be.")
    max_model_len: int | None = Field(None, ge=16, description="Longest prompt plus answer, in tokens.")
    max_num_seqs: int | None = Field(None, ge=1, description="Requests decoded at the same time.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="Type of the weights.")
    enforce_eager: bool = Field(False, description="Skip compilation: a faster start, slower tokens.")
    cpu_kv_cache_gib: int = Field(1, ge=1, description="KV cache of one replica on CPU, in GiB. Unused on GPU.")
    start_timeout_s: float = Field(1800.0, gt=0, description="Seconds an engine may take to start.")
    lora: LoraEngineConfig | None = Field(None, description="Room for LoRA adapters; absent: the engine takes none.")
    engine_args: dict[str, JsonValue] = Field(
        default_factory=dict, description="Further vLLM engine arguments by their Python name, checked by vLLM."
    )
    simulated: SimulatedLatency = Field(default=SimulatedLatency(), description="Used by `kind: simulated` only.")

    @model_validator(mode="after")
    def _engine_args_repeat_no_field(self) -> Self:
        own = set(type(self).model_fields) - {"kind", "engine_args", "simulated"}
        taken = sorted(self.engine_args.keys() & (own | set(SET_BY_MANTA)))
        refuse((("engine_args", arg), f"set `engine.{arg}` instead" if arg in own else SET_BY_MANTA[arg]) for arg in taken)
        return self

    @property
    def ranks(self) -> int:
        """Processes (and, on GPU, accelerators) that one replica needs."""
        return self.tensor_parallel_size * self.pipeline_parallel_size
