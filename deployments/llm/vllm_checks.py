"""Checks of one engine's configuration by vLLM's own classes, without weights, devices or an engine. Imports vllm."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from deployments.llm.vllm_args import ArgumentsError, parse_args, vllm_args
from deployments.llm.vllm_fields import FieldFinder, Problem, path_of
from serve_app.config import EngineConfig
from serve_app.config_engine import is_template_file
from serve_app.config_engine_speculative import WITHOUT_MODEL
from serve_app.config_rules import near_miss

# What is said of these may be true of this machine's platform only.
PLATFORM_ARGUMENTS = ("quantization", "kv_cache_dtype", "dtype", "attention_backend", "moe_backend", "compilation_config")
PLATFORM_FOLDER = f"{os.sep}vllm{os.sep}platforms{os.sep}"
ELSEWHERE = "this machine has no such accelerator, so its kernels, types and memory are not checked"
NO_FILES = "the model's files are not on this machine, so nothing is checked against them"


@dataclass(frozen=True)
class Subject:
    """An engine's configuration, and where it is to run."""

    source: str
    engine: EngineConfig
    has_accelerator: bool


@dataclass
class Findings:
    """What vLLM says of a configuration.

    Attributes:
        problems: (path of the field, relative to the variant; what is wrong), as far as it is certain.
        unchecked: what could not be checked on this machine, and why.
    """

    problems: list[Problem] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def check(subject: Subject) -> Findings:
    """Return what vLLM refuses of a configuration, and what it cannot know here."""
    arguments = vllm_args("model", subject.source, subject.engine)
    problems = [*_name_problems(arguments), *_template_problems(subject.engine)]
    try:
        args = parse_args(arguments)
    except ArgumentsError as err:
        return Findings([*((path_of(name), message) for name, message in err.problems), *problems])
    if problems:
        return Findings(problems)
    with platform_of(subject) as is_elsewhere:
        findings = _findings(subject, args, FieldFinder(subject.engine, arguments), is_elsewhere=is_elsewhere)
    if is_elsewhere:
        findings.unchecked.append(ELSEWHERE)
    if not _has_files(subject):
        findings.unchecked.append(NO_FILES)
    return findings


def _findings(subject: Subject, args: argparse.Namespace, finder: FieldFinder, *, is_elsewhere: bool) -> Findings:
    try:
        _build(subject, args, is_elsewhere)
    except Exception as err:  # whatever vLLM raises here, it raises when the engine starts
        problems = finder.problems(err)
        doubtful = [problem for problem in problems if is_elsewhere and _is_of_platform(err, problem)]
        certain = [problem for problem in problems if problem not in doubtful]
        return Findings(certain, [f"{'.'.join(path)}: on this machine vLLM says: {message}" for path, message in doubtful])
    return Findings()


def _has_files(subject: Subject) -> bool:
    """Whether all that vLLM reads of the model is in folders here."""
    speculative, tokenizer = subject.engine.speculative, subject.engine.tokenizer
    drafts = [speculative.model] if speculative is not None and speculative.model is not None else []
    return all(os.path.isdir(folder) for folder in (subject.source, *drafts, *([tokenizer] if tokenizer else [])))


def _is_of_platform(error: Exception, problem: Problem) -> bool:
    if "Cannot find the config file" in problem[1]:
        return False  # the model's files lack it, whatever runs them
    if "current platform" in problem[1]:
        return True
    trace, files = error.__traceback__, []
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return problem[0][-1] in PLATFORM_ARGUMENTS or any(PLATFORM_FOLDER in file for file in files)


@contextlib.contextmanager
def platform_of(subject: Subject) -> Iterator[bool]:
    """Let vLLM build configurations for accelerators that this machine lacks; yields whether it lacks them."""
    from vllm.platforms import current_platform

    is_elsewhere = subject.has_accelerator and current_platform.is_cpu()
    if not is_elsewhere:
        yield False
        return
    # Which quantizations the CPU knows says nothing of the accelerator.
    kind = type(current_platform)
    own = vars(kind).get("verify_quantization")
    kind.verify_quantization = classmethod(lambda _cls, _method: None)
    try:
        yield True
    finally:
        if own is None:
            del kind.verify_quantization
        else:
            kind.verify_quantization = own


def _build(subject: Subject, args: argparse.Namespace, is_elsewhere: bool) -> None:
    """Build vLLM's configuration, or the parts of it that need no files. Raises what vLLM raises."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
    from vllm.usage.usage_lib import UsageContext

    validate_parsed_serve_args(args)
    if subject.engine.ranks > 1:
        # The cluster places the ranks; without a word vLLM would count this machine's accelerators.
        args.distributed_executor_backend = "mp"
    if not _has_files(subject):
        with _hub(is_offline=False):  # offline, vLLM would look for the model's files already now
            engine_args = AsyncEngineArgs.from_cli_args(args)
        _build_parts(engine_args, subject.engine)
        return
    with _hub(is_offline=True):  # what a local folder lacks is not to be asked of the hub
        engine_args = AsyncEngineArgs.from_cli_args(args)
        config = engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    if not is_elsewhere and subject.engine.kv_cache_dtype is not None:
        _check_cpu_cache(config)


def _build_parts(engine_args: Any, engine: EngineConfig) -> None:
    from vllm.config import CacheConfig, LoRAConfig, OffloadConfig, SpeculativeConfig
    from vllm.config.attention import AttentionConfig
    from vllm.config.offload import UVAOffloadConfig

    engine_args.create_load_config()
    engine_args.create_observability_config()
    AttentionConfig.validate_backend_before(engine_args.attention_backend)
    CacheConfig(
        block_size=engine_args.block_size,
        gpu_memory_utilization=engine_args.gpu_memory_utilization,
        cache_dtype=engine_args.kv_cache_dtype,
        prefix_caching_hash_algo=engine_args.prefix_caching_hash_algo,
        kv_offloading_size=engine_args.kv_offloading_size,
        kv_offloading_backend=engine_args.kv_offloading_backend,
    )
    OffloadConfig(offload_backend=engine_args.offload_backend, uva=UVAOffloadConfig(cpu_offload_gb=engine_args.cpu_offload_gb))
    if engine.lora is not None:
        sizes = {name: getattr(engine_args, name) for name in ("max_lora_rank", "max_loras", "max_cpu_loras", "lora_dtype")}
        LoRAConfig(**sizes, fully_sharded_loras=engine_args.fully_sharded_loras)
    if engine.speculative is not None and engine.speculative.method in WITHOUT_MODEL:
        SpeculativeConfig(**engine_args.speculative_config)


def _check_cpu_cache(config: Any) -> None:
    """Raise ValueError when the CPU's attention cannot read this KV cache; an engine finds that out late."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or config.model_config.use_mla:
        return
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    kind = config.cache_config.cache_dtype
    known = CPUAttentionBackend.supported_kv_cache_dtypes
    if kind not in known and kind != str(config.model_config.dtype).removeprefix("torch."):
        raise ValueError(f"kv_cache_dtype {kind!r} cannot be used on CPU. Supported there: {', '.join(known)}")


@contextlib.contextmanager
def _hub(*, is_offline: bool) -> Iterator[None]:
    """Tell Hugging Face's libraries, and vLLM, whether the hub can be asked."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = is_offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _name_problems(arguments: Mapping[str, JsonValue]) -> Iterator[Problem]:
    """Find names that vLLM looks up only while an engine starts, or that it lists without a suggestion."""
    for name, known, plugin in _NAMES:
        value = arguments.get(name)
        # A plugin may bring further names, and is not imported here.
        if isinstance(value, str) and not arguments.get(plugin) and value.lower() not in (names := known()):
            yield path_of(name), f"vLLM knows no {value!r}, {near_miss(value, sorted(names), listed_as='it has')}"


def _template_problems(engine: EngineConfig) -> Iterator[Problem]:
    """Find a chat template that is no template; vLLM would find out in the first request."""
    if engine.chat_template is None or is_template_file(engine.chat_template):
        return  # a file that this machine does not have
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(engine.chat_template)
    except TemplateSyntaxError as err:
        yield path_of("chat_template"), f"line {err.lineno} of the template: {(err.message or '').rstrip('.')}"


def _quantizations() -> list[str]:
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    return list(QUANTIZATION_METHODS)


def _load_formats() -> list[str]:
    from vllm.model_executor.model_loader import _LOAD_FORMAT_TO_MODEL_LOADER

    return list(_LOAD_FORMAT_TO_MODEL_LOADER)


def _tool_parsers() -> list[str]:
    from vllm.tool_parsers import ToolParserManager

    return list(ToolParserManager.list_registered())


def _reasoning_parsers() -> list[str]:
    from vllm.reasoning import ReasoningParserManager

    return list(ReasoningParserManager.list_registered())


_NAMES: tuple[tuple[str, Callable[[], list[str]], str], ...] = (
    ("quantization", _quantizations, ""),
    ("load_format", _load_formats, ""),
    ("tool_call_parser", _tool_parsers, "tool_parser_plugin"),
    ("reasoning_parser", _reasoning_parsers, "reasoning_parser_plugin"),
)
