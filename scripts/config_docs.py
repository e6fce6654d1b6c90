"""Writes docs/configuration.md: tables from the model, and error examples as `manta validate` prints them.

python -m scripts.config_docs           rewrite the page
python -m scripts.config_docs --check   exit with 1 when the page is out of date
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from scripts.generated import settle
from serve_app.commands.rollout_tables import span
from serve_app.config import SET_BY_MANTA, Duration, EngineConfig, PlatformConfig
from serve_app.config_error import ConfigError, section_of
from serve_app.loading import parse_platform

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
COMMAND = "python -m scripts.config_docs"
LIMITS = {
    Ge: ("ge", "at least {}"),
    Gt: ("gt", "more than {}"),
    Le: ("le", "at most {}"),
    Lt: ("lt", "less than {}"),
    MaxLen: ("max_length", "up to {} characters"),
}
_DURATION_MARK = get_args(Duration)[1]  # the validator that no other field has

INTRO = f"""<!-- Written by `{COMMAND}`; change the descriptions in serve_app/config.py or the text in the script. -->
# Configuration

One document configures everything. The same document is a YAML file (`manta run platform.yaml`) and the `platform:` block
of the chart's values. [platform.yaml](../platform.yaml) is a working example with comments.

```
manta validate FILE              # a line per model, embedder and pipeline; problems on stderr, exit code 1
manta validate --no-files FILE   # accepts model folders and prompt files that this machine does not have
manta validate --no-engines FILE # does not ask vLLM what it says of the engines (engines.md)
manta render FILE                # the Ray Serve configuration that it stands for
manta schema                     # JSON Schema, for editors
```

- A field that is not listed here is an error, not a comment: a typo never turns into a default.
- Relative folders, prompt files and `vector_store.uri` start at the folder of the file.
- Names become names of Serve applications and Kubernetes labels: lower-case letters, digits and inner `-`, up to 40.
  Models, embedders and pipelines share one set of names, because clients send all three as `model`.
- A duration is a number of seconds, or a text such as `30s`, `10m` or `1h30m` (`ms`, `s`, `m`, `h`, `d`).
- The weights of a model's variants, and of a pipeline's versions, are integers that sum to 100.
- A model `source` is a Hugging Face id (`org/name`), a folder (starts with `/`, `./`, `../` or `~`), or `s3://bucket/prefix`.
- Anchors, aliases and `<<` work. Bounds: 262,144 characters, 20,000 values (aliases count each time), 32 levels.
"""

PROMPTS = """## Prompts

A prompt is a [Jinja2](https://jinja.palletsprojects.com/) template that runs in a sandbox and sees two variables:

| variable | what it is |
|---|---|
| `question` | what the user asked, text |
| `hits` | the passages, best first; each has `number` (from 1), `title` and `text` |

Another variable or attribute is an error when the configuration is read, not in the first request.
[prompts/cite.j2](../prompts/cite.j2) is a good start for instruct models.
"""

EXAMPLES = (
    (
        "A typo, a misplaced field, a wrong type",
        """\
modles: []
models:
  - name: Chat
    variants:
      - name: stable
        source: org/model
        wieght: 100
        max_model_len: 4096
        engine: {kind: vlm, tensor_parallel_size: two, enforce_eager: on}
        replicas: yes
""",
    ),
    (
        "Weights that do not sum to 100",
        """\
models:
  - name: chat
    variants:
      - {name: stable, source: org/model, weight: 60}
      - {name: canary, source: org/model-2, weight: 30}
""",
    ),
    (
        "Names that are not declared",
        """\
models:
  - name: chat
    variants: [{name: stable, source: org/model}]
embedders:
  - {name: minilm, source: sentence-transformers/all-MiniLM-L6-v2}
pipelines:
  - name: docs-assistant
    versions:
      - name: v1
        embedder: miniml
        collection: docs
        prompt: prompts/cite.j2
        model: llama
""",
    ),
    (
        "More parallelism than the accelerators",
        """\
models:
  - name: chat
    variants:
      - name: stable
        source: org/model
        accelerator: L40S
        engine: {tensor_parallel_size: 4}
        autoscaling: {min_replicas: 1, max_replicas: 8}
accelerators:
  - {type: L40S, per_node: 2, max_nodes: 2}
""",
    ),
    (
        "No valid YAML",
        """\
models:
\t- name: chat
""",
    ),
)


def page() -> str:
    """Return the whole page."""
    return "\n".join([INTRO, "## Fields\n", *_sections(PlatformConfig, ""), PROMPTS, *_errors()])


def _sections(model: type[BaseModel], prefix: str) -> Iterator[str]:
    title = f"`{prefix}`" if prefix else "Top level"
    rows = "\n".join(_row(name, info) for name, info in model.model_fields.items())
    doc = " ".join((model.__doc__ or "").split())
    yield f"### {title}\n\n{doc}\n\n| field | type | default | limits | what it is |\n|---|---|---|---|---|\n{rows}\n"
    if model is EngineConfig:
        yield _reserved()
    for name, info in model.model_fields.items():
        if child := section_of(info.annotation):
            suffix = "[]" if get_origin(info.annotation) is tuple else ""
            yield from _sections(child, f"{prefix}.{name}{suffix}".removeprefix("."))


def _row(name: str, info: FieldInfo) -> str:
    kind = "duration" if _is_duration(info) else _type(info.annotation)
    return f"| `{name}` | {kind} | {_default(info)} | {_limits(info)} | {info.description} |"


def _is_duration(info: FieldInfo) -> bool:
    return _DURATION_MARK in _metadata(info)


def _metadata(info: FieldInfo) -> list[Any]:
    """Return what is said of a field's values; of a type that may be absent it stands inside the annotation."""
    found = list(info.metadata)
    args = get_args(info.annotation)
    for arg in args if NoneType in args else ():
        if get_origin(arg) is Annotated:
            for each in arg.__metadata__:
                found += each.metadata if isinstance(each, FieldInfo) else [each]
    return found


def _type(annotation: Any) -> str:
    args = [arg for arg in get_args(annotation) if arg not in (NoneType, Ellipsis)]
    if section_of(annotation):
        return "list" if get_origin(annotation) is tuple else "fields"
    if get_origin(annotation) is tuple:
        return f"list of {_type(args[0])}"
    if get_origin(annotation) is dict:
        return "fields"
    if args and all(isinstance(arg, str | int) for arg in args):
        return " or ".join(f"`{arg}`" for arg in args)
    words = {str: "text", int: "integer", float: "number", bool: "`true` or `false`", AwareDatetime: "time with its zone"}
    return words.get(annotation) or _type(args[0])


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True)
    if default is None or default is PydanticUndefined:
        return "absent"
    if isinstance(default, BaseModel):
        return "see below"
    if _is_duration(info):
        return f"`{span(default)}`"
    return "none" if default in ((), {}) else f"`{json.dumps(default)}`"


def _limits(info: FieldInfo) -> str:
    found = _metadata(info)
    if _is_duration(info):
        return ", ".join(f"at most {span(float(str(m.le)))}" for m in found if isinstance(m, Le))
    words = [LIMITS[type(m)][1].format(getattr(m, LIMITS[type(m)][0])) for m in found if type(m) in LIMITS]
    if any(isinstance(m, MinLen) for m in found):
        words.append("not empty")
    text = ", ".join(words)
    return text.replace("characters", "entries") if get_origin(info.annotation) is tuple else text


def _reserved() -> str:
    rows = "\n".join(f"- `{name}`: {why}." for name, why in SET_BY_MANTA.items())
    more = "[engines.md](engines.md) has examples, and says what vLLM checks of them."
    return f"{more}\n\n`engine_args` may repeat none of the engine's fields above, nor:\n\n{rows}\n"


def _errors() -> Iterator[str]:
    yield "## When something is wrong\n\nEvery problem is listed with its line and field. All of this is real output.\n"
    for title, text in EXAMPLES:
        try:
            parse_platform(text, name="platform.yaml")
        except ConfigError as err:
            yield f"### {title}\n\n```yaml\n{text}```\n\n```text\n{err}\n```\n"
        else:
            raise ValueError(f"the example {title!r} is valid")


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; return the exit code."""
    return settle(PAGE, page(), command=COMMAND, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
