"""An engine's configuration as vLLM's own arguments, parsed by vLLM's own parser."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from deployments.llm.vllm_words import plain
from serve_app.config import EngineConfig
from serve_app.config_rules import did_you_mean

SAME_NAME = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "max_model_len",
    "max_num_seqs",
    "dtype",
    "enforce_eager",
    "quantization",
    "kv_cache_dtype",
    "load_format",
    "gpu_memory_utilization",
    "cpu_offload_gb",
    "kv_offloading_size",
    "block_size",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "max_num_batched_tokens",
    "trust_remote_code",
    "revision",
    "tokenizer",
    "chat_template",
    "enable_auto_tool_choice",
    "tool_call_parser",
    "reasoning_parser",
)
# vLLM's name of what a section of ours holds.
SECTIONS = {
    "model": "source",
    "speculative_config": "speculative",
    "structured_outputs_config": "structured_outputs",
    "enable_lora": "lora",
    "max_loras": "lora.max_loras",
    "max_lora_rank": "lora.max_rank",
    "max_cpu_loras": "lora.max_loaded",
}
STREAMED = ("runai_streamer", "runai_streamer_sharded")
NewParser = Callable[[], argparse.ArgumentParser]


class ArgumentsError(ValueError):
    """Arguments that vLLM's parser refuses.

    Attributes:
        problems: (vLLM's name of the argument, what is wrong with its value), one for each.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"engine.{field_of(name)}: {message}" for name, message in problems))
        self.problems = tuple(problems)


class RefusedError(ValueError):
    """A value of a kind that an argument does not take."""


def field_of(name: str) -> str:
    """Return the field below ``engine`` that an argument of vLLM's comes from."""
    return name if name in SAME_NAME else SECTIONS.get(name, f"engine_args.{name}")


def is_streamed(source: str, engine: EngineConfig) -> bool:
    """Whether vLLM reads the weights from S3 itself, so that nothing has to be downloaded first."""
    return source.startswith("s3://") and engine.load_format in STREAMED


def vllm_args(model: str, folder: str, engine: EngineConfig) -> dict[str, JsonValue]:
    """Return every argument that the configuration sets, by its Python name; vLLM's defaults are left to vLLM."""
    named = {name: value for name in SAME_NAME if (value := getattr(engine, name)) is not None}
    return {"model": folder, "served_model_name": [model], **named, **_sections(engine), **engine.engine_args}


def _sections(engine: EngineConfig) -> dict[str, JsonValue]:
    sections: dict[str, JsonValue] = {}
    if (lora := engine.lora) is not None:
        sections |= {"enable_lora": True, "max_loras": lora.max_loras}
        sections |= {"max_lora_rank": lora.max_rank, "max_cpu_loras": lora.max_loaded}
    if (outputs := engine.structured_outputs) is not None:
        sections["structured_outputs_config"] = outputs.model_dump(mode="json")
    if (speculative := engine.speculative) is not None:
        own = speculative.model_dump(mode="json", exclude_none=True, exclude={"options"})
        sections["speculative_config"] = {**own, **speculative.options}
    return sections


def vllm_parser() -> argparse.ArgumentParser:
    """Return the parser of `vllm serve`, which raises ValueError where that program ends itself. Imports vllm."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vllm ships no types
        def error(self, message: str) -> None:
            raise ValueError(message)

    parser: argparse.ArgumentParser = make_arg_parser(Parser())
    return parser


def parse_args(arguments: Mapping[str, JsonValue], new_parser: NewParser = vllm_parser) -> argparse.Namespace:
    """Return vLLM's own parsed arguments, so that its defaults and checks are the ones of `vllm serve`.

    Raises:
        ArgumentsError: names that vLLM does not know, and values that its parser refuses; all of them.
    """
    parser = new_parser()
    args = parser.parse_args([])
    actions = {action.dest: action for action in parser._actions if action.option_strings and hasattr(args, action.dest)}
    problems: list[tuple[str, str]] = []
    for name, value in arguments.items():
        if name not in actions:
            hint = did_you_mean(name, actions) or "`vllm serve --help=all` lists them"  # hundreds
            problems.append((name, f"vLLM has no engine argument `{name}`, {hint}"))
            continue
        try:
            setattr(args, name, _parsed(parser, actions[name], value))
        except (ValueError, TypeError, argparse.ArgumentError) as err:
            problems.append((name, plain(str(err))))
    if problems:
        raise ArgumentsError(problems)
    return args


def _parsed(parser: argparse.ArgumentParser, action: argparse.Action, value: JsonValue) -> Any:
    """Return what the parser makes of one value. Raises ValueError."""
    if value is None or value == []:
        return value  # no words of a command line say this; vLLM's configuration takes it as it is
    parsed = getattr(parser.parse_args(_words(action, value)), action.dest)
    if isinstance(value, list | dict) and isinstance(parsed, str):
        raise RefusedError(f"expected one value, got {'a list' if isinstance(value, list) else '`field: value` lines'}")
    return parsed


def _words(action: argparse.Action, value: JsonValue) -> list[str]:
    """Return the words of a command line that give an option this value. Raises RefusedError."""
    flag = next(option for option in action.option_strings if option.startswith("--"))
    if action.nargs == 0:
        return _switch(action, flag, value)
    if value is True and action.nargs == "?":
        return [flag]
    if isinstance(value, bool):
        raise RefusedError(f"expected a value, got {str(value).lower()}")
    if isinstance(value, list) and action.nargs is not None:
        return [flag, *map(_text, value)]
    return [f"{flag}={_text(value)}"]


def _switch(action: argparse.Action, flag: str, value: JsonValue) -> list[str]:
    if not isinstance(value, bool):
        raise RefusedError(f"expected true or false, got {json.dumps(value)}")
    opposite = [option for option in action.option_strings if option.startswith("--no-")]
    return [flag] if value else opposite


def _text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # Helm turns a large integer into 1e+06
    return json.dumps(value)
