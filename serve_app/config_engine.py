"""The engine inside an LLM replica: its parallelism and its options."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from serve_app.config_engine_speculative import HubOrFolder, SpeculativeConfig
from serve_app.config_fields import Config, Text
from serve_app.config_rules import Problems, refuse

_RANKS = "set by the platform: it places the ranks"
_ONE_ENGINE = "a replica reserves the ranks of one engine; set more `replicas` of the variant instead"
SET_BY_MANTA = {
    "model": "set by the variant's `source`",
    "model_tag": "set by the variant's `source`",
    "served_model_name": "set by the model's `name`",
    "host": "set by the platform: a replica picks its own address",
    "port": "set by the platform: a replica picks its own port",
    "uds": "set by the platform: a replica picks its own address",
    "api_key": "set by the platform: replicas accept its internal token only",
    "config": "this document is the configuration; write its fields here",
    "speculative_config": "set `engine.speculative` instead",
    "spec_method": "set `engine.speculative.method` instead",
    "spec_model": "set `engine.speculative.model` instead",
    "spec_tokens": "set `engine.speculative.num_speculative_tokens` instead",
    "structured_outputs_config": "set `engine.structured_outputs` instead",
    "enable_lora": "set `engine.lora` instead",
    "max_loras": "set `engine.lora.max_loras` instead",
    "max_lora_rank": "set `engine.lora.max_rank` instead",
    "max_cpu_loras": "set `engine.lora.max_loaded` instead",
    "distributed_executor_backend": _RANKS,
    "nnodes": _RANKS,
    "node_rank": _RANKS,
    "master_addr": _RANKS,
    "master_port": _RANKS,
    "headless": _RANKS,
    "worker_extension_cls": "set by the platform: its own extension prepares the stages",
    "data_parallel_size": _ONE_ENGINE,
    "data_parallel_rank": _ONE_ENGINE,
    "data_parallel_start_rank": _ONE_ENGINE,
    "data_parallel_size_local": _ONE_ENGINE,
    "data_parallel_address": _ONE_ENGINE,
    "data_parallel_rpc_port": _ONE_ENGINE,
    "data_parallel_hybrid_lb": _ONE_ENGINE,
    "data_parallel_external_lb": _ONE_ENGINE,
    "data_parallel_multi_port_external_lb": _ONE_ENGINE,
    "data_parallel_backend": _ONE_ENGINE,
    "data_parallel_supervisor_port": _ONE_ENGINE,
}
KvCacheDtype = Literal[
    "auto",
    "float16",
    "bfloat16",
    "fp8",
    "fp8_e4m3",
    "fp8_e5m2",
    "fp8_inc",
    "fp8_ds_mla",
    "turboquant_k8v4",
    "turboquant_4bit_nc",
    "turboquant_k3v4_nc",
    "turboquant_3bit_nc",
    "int4_per_token_head",
    "int8_per_token_head",
    "fp8_per_token_head",
    "nvfp4",
    "nvfp4_4over6",
]
TEMPLATE_SUFFIXES = (".jinja", ".jinja2", ".j2")


def is_template_file(template: str) -> bool:
    """Whether a chat template is named by its file, and not written out."""
    return "\n" not in template and template.endswith(TEMPLATE_SUFFIXES)


def is_template(template: str) -> bool:
    """Whether this can be a chat template: vLLM takes any other text for the path of a file."""
    return is_template_file(template) or any(sign in template for sign in "{}\n")


def _share(what: str) -> float:
    field: float = Field(0.0, ge=0, le=1, description=f"Share of requests {what}.")
    return field


class SwitchedFaults(Config):
    """Faults that a simulated engine takes up at once, while it runs."""

    error_ratio: float = _share("that are answered with status 500")
    hang_ratio: float = _share("that are never answered")
    garbage_ratio: float = _share("that are answered with bytes which are neither JSON nor events")
    half_stream_ratio: float = _share("whose connection is cut after half of the answer")
    silent_end_ratio: float = _share("whose stream ends after half of its tokens as if it were whole, without `[DONE]`")
    stall_ratio: float = _share("whose answer stops after half of it, with the connection open")
    slow_factor: float = Field(1.0, ge=0, le=1_000_000, description="What every time of the latency model is multiplied by.")
    dead: bool = Field(False, description="Whether the engine says that it has died, and answers nothing any more.")


class SimulatedFaults(SwitchedFaults):
    """What is wrong with a simulated engine, to see what a rollout or a Router makes of it."""

    crash_after_requests: int | None = Field(None, ge=1, description="Requests after which the replica's process dies.")
    fails_to_start: bool = Field(False, description="Whether no replica ever starts.")


class SimulatedLatency(Config):
    """Latency model of the simulated engine."""

    prefill_s_per_token: float = Field(0.0001, ge=0, description="Seconds of prefill per prompt token.")
    decode_s_per_token: float = Field(0.01, ge=0, description="Seconds between generated tokens.")
    slots: int = Field(64, ge=1, description="Requests decoded at the same time; further ones wait.")
    start_s: float = Field(0.0, ge=0, description="Seconds a replica takes to start.")
    faults: SimulatedFaults = Field(default=SimulatedFaults(), description="Faults on purpose.")


class HealthConfig(Config):
    """How a replica finds out that its engine no longer generates: it sends itself requests of one token."""

    probe_interval_s: float = Field(
        60.0,
        ge=0,
        description="Seconds without an answer or a step of the engine before the replica probes itself; 0: it never does.",
    )
    probe_timeout_s: float = Field(
        120.0, gt=0, description="Seconds an engine that does nothing else may take to answer a probe."
    )
    failures: int = Field(2, ge=1, description="Probes in a row that fail before Ray Serve replaces the replica.")


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


class StructuredOutputsConfig(Config):
    """Answers that follow a JSON schema, a grammar or a pattern (vLLM's `structured_outputs_config`)."""

    backend: Literal["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"] = Field(
        "auto", description="Library that constrains the tokens; `auto` chooses by the request."
    )
    disable_any_whitespace: bool = Field(False, description="Compact JSON only; by `xgrammar` and `guidance`.")
    disable_additional_properties: bool = Field(False, description="Allow no properties beside the schema's; by `guidance`.")
    enable_in_reasoning: bool = Field(False, description="Constrain the reasoning too, not only the answer after it.")

    @model_validator(mode="after")
    def _backend_can_do_it(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Problems:
        if self.disable_any_whitespace and self.backend not in ("xgrammar", "guidance"):
            yield ("disable_any_whitespace",), f"`{self.backend}` cannot do it; set `backend: xgrammar` or `backend: guidance`"
        if self.disable_additional_properties and self.backend != "guidance":
            yield ("disable_additional_properties",), f"`{self.backend}` cannot do it; set `backend: guidance`"


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
    quantization: Text | None = Field(
        None, description="How the weights are quantized, such as awq, gptq or fp8. Absent: what the model says of itself."
    )
    kv_cache_dtype: KvCacheDtype | None = Field(None, description="Type of the KV cache. Absent: that of the weights.")
    load_format: Text | None = Field(
        None,
        description="How weights are read: auto, safetensors, runai_streamer, runai_streamer_sharded, sharded_state, "
        "tensorizer, mistral, dummy (random weights) or another that vLLM knows.",
    )
    gpu_memory_utilization: float | None = Field(
        None, gt=0, le=1, description="Share of an accelerator's memory that the engine takes. Absent: 0.92."
    )
    cpu_offload_gb: float | None = Field(None, ge=0, description="Weights kept in the node's memory, in GiB per accelerator.")
    kv_offloading_size: float | None = Field(
        None, gt=0, description="Room in the node's memory for KV cache that leaves the accelerators, in GiB for all ranks."
    )
    block_size: int | None = Field(None, ge=1, description="Tokens in a block of the KV cache.")
    enable_prefix_caching: bool | None = Field(
        None, description="Keep the KV cache of prompts that start alike. Absent: where the model allows it."
    )
    enable_chunked_prefill: bool | None = Field(
        None, description="Read long prompts in pieces between the steps of others. Absent: where the model allows it."
    )
    max_num_batched_tokens: int | None = Field(None, ge=1, description="Tokens of one step, over all requests.")
    trust_remote_code: bool = Field(False, description="Run code that comes with the model; only for sources you trust.")
    revision: Text | None = Field(None, description="Branch, tag or commit of a Hugging Face id.")
    tokenizer: HubOrFolder | None = Field(
        None, description="Hugging Face id or folder of the tokenizer. Absent: the model's own."
    )
    chat_template: Text | None = Field(
        None, description="Chat template: a .jinja or .j2 file, or the text itself. Absent: the model's own."
    )
    enable_auto_tool_choice: bool = Field(False, description="Let the model decide to call tools; needs `tool_call_parser`.")
    tool_call_parser: Text | None = Field(None, description="How the model writes tool calls, such as hermes or llama3_json.")
    reasoning_parser: Text | None = Field(None, description="How the model writes its reasoning, such as deepseek_r1 or qwen3.")
    structured_outputs: StructuredOutputsConfig | None = Field(None, description="Structured outputs; absent: vLLM's choice.")
    speculative: SpeculativeConfig | None = Field(None, description="Speculative decoding; absent: none.")
    health: HealthConfig = Field(default=HealthConfig(), description="Probes of the engine.")
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

    @model_validator(mode="after")
    def _options_fit_together(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Problems:
        if self.enable_auto_tool_choice and self.tool_call_parser is None:
            message = "needs `tool_call_parser`: how the model writes tool calls, such as hermes"
            yield ("enable_auto_tool_choice",), message
        if (template := self.chat_template) is not None and not is_template(template):
            message = f"{template[:60]!r} is neither a template's text nor a file of one, which ends in .jinja or .j2"
            yield ("chat_template",), message
        yield from self._size_problems()

    def _size_problems(self) -> Problems:
        tokens, requests = self.max_num_batched_tokens, self.max_num_seqs
        if tokens is not None and requests is not None and tokens < requests:
            message = f"must be at least `max_num_seqs` ({requests}): each request takes a token of a step"
            yield ("max_num_batched_tokens",), f"{message}, got {tokens}"
        draft = self.speculative.draft_tensor_parallel_size if self.speculative else None
        if draft not in (None, 1, self.tensor_parallel_size):
            allowed = " or ".join(str(size) for size in sorted({1, self.tensor_parallel_size}))
            message = f"must be {allowed} (1, or the engine's `tensor_parallel_size`), got {draft}"
            yield ("speculative", "draft_tensor_parallel_size"), message

    @property
    def ranks(self) -> int:
        """Processes (and, on GPU, accelerators) that one replica needs."""
        return self.tensor_parallel_size * self.pipeline_parallel_size
