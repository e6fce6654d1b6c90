"""What vLLM itself says of engines at `manta validate`: all cases in one process, on the demo model, and no engine starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deployments.llm.vllm_checks import ELSEWHERE, NO_FILES
from serve_app.commands import engine_checks
from serve_app.commands.engine_checks import Report
from serve_app.config import PlatformConfig

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

DEMO = str(Path(__file__).resolve().parents[2] / "models" / "demo" / "model")
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
GPU = {"accelerator": "L40S"}


def args(**arguments: Any) -> dict[str, Any]:
    return {"engine_args": arguments}


# engine -> (field, start of what is told)
MISTAKES: Mapping[str, tuple[dict[str, Any], str, str]] = {
    "quantization-near": ({"quantization": "aqw"}, "quantization", "vLLM knows no 'aqw', did you mean `awq`?"),
    "quantization-far": ({"quantization": "zzz"}, "quantization", "vLLM knows no 'zzz', it has: auto_awq, auto_gptq, awq, "),
    "quantization-of-another-model": (
        {"quantization": "awq"},
        "quantization",
        "Cannot find the config file for awq: the model's weights are not quantized so",
    ),
    "too-long": (
        {"max_model_len": 100_000},
        "max_model_len",
        "User-specified max_model_len (100000) is greater than the derived",
    ),
    "ranks-that-share-no-heads": (
        {"tensor_parallel_size": 4},
        "tensor_parallel_size",
        "Total number of attention heads (6) must be divisible by tensor parallel size (4)",
    ),
    "unknown-argument": (
        args(max_modl_len=8),
        "engine_args.max_modl_len",
        "vLLM has no engine argument `max_modl_len`, did you mean `max_model_len`?",
    ),
    "unknown-argument-far": (
        args(rope_scaling={}),
        "engine_args.rope_scaling",
        "vLLM has no engine argument `rope_scaling`, `vllm serve --help=all` lists them",
    ),
    "no-number": (args(seed="many"), "engine_args.seed", "expected a whole number, got 'many'"),
    "no-truth": (args(disable_log_stats=3), "engine_args.disable_log_stats", "expected true or false, got 3"),
    "no-list": (args(generation_config=["a"]), "engine_args.generation_config", "expected one value, got a list"),
    "choice": (args(runner="poolin"), "engine_args.runner", "'poolin' is not one of auto, draft, generate, pooling"),
    "bound": (args(max_logprobs=-5), "engine_args.max_logprobs", "must be greater than or equal to -1, got -5"),
    "compilation": (
        args(compilation_config={"mode": 99, "foo": 1}),
        "engine_args.compilation_config",
        "mode: must be 0, 1, 2 or 3; foo: unknown field",
    ),
    "attention": (
        args(attention_backend="FOO"),
        "engine_args.attention_backend",
        "Unknown attention backend: 'FOO'. Valid options are: FLASH_ATTN, ",
    ),
    "connector": (args(kv_transfer_config={"kv_connector": "X"}), "engine_args.kv_transfer_config", "Please specify kv_role"),
    "connector-of-nobody": (
        args(kv_transfer_config={"kv_connector": "NoSuchConnector", "kv_role": "kv_both"}),
        "engine_args.kv_transfer_config",
        "Unsupported connector type: NoSuchConnector",
    ),
    "sleep": (args(enable_sleep_mode=True), "engine_args.enable_sleep_mode", "Sleep mode is not supported on current platform"),
    "outputs-without-requests": (
        args(enable_log_outputs=True),
        "engine_args.enable_log_outputs",
        "--enable-log-outputs requires --enable-log-requests",
    ),
    "load-format": ({"load_format": "safetensor"}, "load_format", "vLLM knows no 'safetensor', did you mean `safetensors`?"),
    "cache-type-of-gpus": (
        {"kv_cache_dtype": "nvfp4"},
        "kv_cache_dtype",
        "kv_cache_dtype 'nvfp4' cannot be used on CPU. Supported there: auto, fp8, ",
    ),
    "step-shorter-than-a-prompt": (
        {"max_num_batched_tokens": 100, "max_num_seqs": 8, "enable_chunked_prefill": False},
        "max_num_batched_tokens",
        "max_num_batched_tokens (100) is smaller than max_model_len (2048).",
    ),
    "tool-parser": (
        {"tool_call_parser": "herms", "enable_auto_tool_choice": True},
        "tool_call_parser",
        "vLLM knows no 'herms', did you mean `hermes`?",
    ),
    "reasoning-parser": ({"reasoning_parser": "qwen"}, "reasoning_parser", "vLLM knows no 'qwen', did you mean `qwen3`?"),
    "chat-template": ({"chat_template": "{{ messages"}, "chat_template", "line 1 of the template: unexpected end of template"),
    "speculative-option": (
        {"speculative": {**NGRAM, "options": {"foo": 1}}},
        "speculative.options.foo",
        "unknown field, got 1",
    ),
    "speculative-choice": (
        {"speculative": {**NGRAM, "options": {"rejection_sample_method": "foo"}}},
        "speculative.options.rejection_sample_method",
        "must be 'standard', 'synthetic' or 'block', got 'foo'",
    ),
    "speculative-method-of-other-models": (
        {"speculative": {"method": "mtp", "num_speculative_tokens": 1}},
        "speculative.method",
        "Unsupported speculative method: 'mtp'",
    ),
    "draft-quantization": (
        {"speculative": {"model": DEMO, "num_speculative_tokens": 1, "quantization": "zzz"}},
        "speculative.quantization",
        "Unknown quantization method: zzz. Must be one of ['awq', ",
    ),
    "draft-longer-than-its-model": (
        {"speculative": {"model": DEMO, "num_speculative_tokens": 1, "max_model_len": 9_000}},
        "speculative.max_model_len",
        "User-specified max_model_len (9000) is greater than the derived",
    ),
}
# variant -> (field, start of what is told) or nothing, and what is left unchecked
OTHERS: Mapping[str, tuple[dict[str, Any], list[tuple[str, str]], list[str]]] = {
    "plain": ({}, [], []),
    "full": (
        {
            "engine": {
                "max_model_len": 1024,
                "max_num_seqs": 8,
                "max_num_batched_tokens": 512,
                "enable_prefix_caching": True,
                "enable_chunked_prefill": True,
                "kv_cache_dtype": "fp8",
                "load_format": "dummy",
                "gpu_memory_utilization": 0.5,
                "block_size": 32,
                "tokenizer": DEMO,
                "chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
                "lora": {"max_loras": 2, "max_rank": 32},
                "speculative": NGRAM,
                "structured_outputs": {"backend": "guidance", "disable_any_whitespace": True},
                "tensor_parallel_size": 2,
            }
        },
        [],
        [],
    ),
    "gpu": ({**GPU, "engine": {"quantization": "fp8", "kv_cache_dtype": "fp8"}}, [], [ELSEWHERE]),
    "gpu-too-long": (
        {**GPU, "engine": {"max_model_len": 100_000}},
        [("max_model_len", "User-specified max_model_len (100000)")],
        [ELSEWHERE],
    ),
    "gpu-cache-type": ({**GPU, "engine": {"kv_cache_dtype": "nvfp4"}}, [], [ELSEWHERE]),
    "gpu-sleeps": (
        {**GPU, "engine": args(enable_sleep_mode=True)},
        [],
        [
            ELSEWHERE,
            "engine.engine_args.enable_sleep_mode: on this machine vLLM says: Sleep mode is not supported on current platform",
        ],
    ),
    "hub": ({"source": "org/model", "engine": {"speculative": NGRAM, "lora": {}}}, [], [NO_FILES]),
    "hub-mistake": (
        {"source": "org/model", "engine": {"speculative": {**NGRAM, "options": {"foo": 1}}}},
        [("speculative.options.foo", "unknown field")],
        [NO_FILES],
    ),
    "s3": ({"source": "s3://bucket/x", "engine": {"load_format": "runai_streamer"}}, [], [NO_FILES]),
    "hub-draft": (
        {"engine": {"speculative": {"method": "eagle3", "model": "org/draft", "num_speculative_tokens": 2}}},
        [],
        [NO_FILES],
    ),
}
NAMES = [*MISTAKES, *OTHERS]


@pytest.fixture(scope="module")
def report() -> Report:
    variants: list[dict[str, Any]] = [{"engine": engine} for engine, _, _ in MISTAKES.values()]
    variants += [variant for variant, _, _ in OTHERS.values()]
    models = [
        {"name": name, "variants": [{"name": "v", "source": DEMO, **variant}]}
        for name, variant in zip(NAMES, variants, strict=True)
    ]
    return engine_checks.check(PlatformConfig.model_validate({"models": models}))


def told(report: Report, name: str) -> list[tuple[str, str]]:
    """Return (field of the engine, message) of what is told of one case."""
    here = ("models", NAMES.index(name), "variants", 0, "engine")
    return [(".".join(map(str, path[5:])), message) for path, message in report.problems if path[:5] == here]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_at_its_field(report: Report, name: str) -> None:
    _, field, start = MISTAKES[name]
    assert [(where, message[: len(start)]) for where, message in told(report, name)] == [(field, start)]


@pytest.mark.parametrize("name", OTHERS)
def test_only_what_is_certain_here_is_a_problem(report: Report, name: str) -> None:
    _, problems, unchecked = OTHERS[name]
    place = ("models", NAMES.index(name), "variants", 0)
    found = told(report, name)
    assert [field for field, _ in found] == [field for field, _ in problems]
    assert all(message.startswith(start) for (_, message), (_, start) in zip(found, problems, strict=True))
    assert sorted(reason for places, reason in report.unchecked if place in places) == sorted(unchecked)


def test_no_message_holds_a_traceback_an_address_or_a_link(report: Report) -> None:
    assert report.problems
    assert [
        text for _, text in report.problems if "Traceback" in text or " at 0x" in text or "http" in text or "\n" in text
    ] == []
