"""FileResolver: makes a configuration independent of the folder it was written in."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve_app.config import (
    AdapterConfig,
    AuthConfig,
    EmbedderConfig,
    EngineConfig,
    ModelConfig,
    PipelineConfig,
    PipelineVersionConfig,
    PlatformConfig,
    VariantConfig,
    VectorStoresConfig,
    source_kind,
)
from serve_app.config_engine import is_template_file
from serve_app.config_rules import FieldPath
from serve_app.config_vector_stores import documents_uri
from serve_app.storage.location import is_remote

MAX_PROMPT_CHARACTERS = 64 * 1024
PROMPT_SUFFIX = ".j2"
PUT_WEIGHTS = "put the weights there, or write a Hugging Face id (org/name) or s3://bucket/prefix"
PUT_OR_HUB = "put the model there, on every node, or write a Hugging Face id (org/name)"  # where S3 is refused
ADAPTER_FILE = "adapter_config.json"  # PEFT's description of an adapter


def read_text(path: Path, most_characters: int) -> str:
    """Return a file's text.

    Raises:
        ValueError: what is in the way, in plain words without the path.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(most_characters + 1)
    except FileNotFoundError as err:
        raise ValueError("no such file") from err
    except IsADirectoryError as err:
        raise ValueError("this is a folder; name the file in it") from err
    except UnicodeDecodeError as err:
        raise ValueError("this is not UTF-8 text") from err
    except OSError as err:
        raise ValueError(f"cannot be read: {(err.strerror or str(err)).lower()}") from err
    if len(text) > most_characters:
        raise ValueError(f"longer than the {most_characters:,} characters that are read")
    return text


class FileResolver:
    """Walks over a configuration and keeps the problems it meets.

    Attributes:
        problems: (path of the field, what is wrong and how to mend it).
    """

    def __init__(self, root: Path, check_files: bool) -> None:
        self._root = root
        self._check_files = check_files
        self.problems: list[tuple[FieldPath, str]] = []

    def resolve(self, config: PlatformConfig) -> PlatformConfig:
        """Return the configuration with absolute paths and with prompts in place of their files."""
        store = config.vector_store.model_copy(update={"uri": self._uri(config.vector_store.uri)})
        return config.model_copy(
            update={
                "models": tuple(self._model(m, ("models", i)) for i, m in enumerate(config.models)),
                "embedders": tuple(self._embedder(e, ("embedders", i)) for i, e in enumerate(config.embedders)),
                "pipelines": tuple(self._pipeline(p, ("pipelines", i)) for i, p in enumerate(config.pipelines)),
                "vector_store": store,
                "vector_stores": self._vector_stores(config.vector_stores, store.uri),
                "auth": self._auth(config.auth),
            }
        )

    def _vector_stores(self, stores: VectorStoresConfig | None, collections_uri: str) -> VectorStoresConfig | None:
        if stores is None:
            return None
        return stores.model_copy(update={"uri": self._uri(documents_uri(stores.uri, collections_uri))})

    def _auth(self, auth: AuthConfig) -> AuthConfig:
        if auth.keys_file is None:
            return auth
        file = self._absolute(auth.keys_file)
        if self._check_files:
            from serve_app.config_error import ConfigError  # it describes this configuration, so it imports it
            from serve_app.key_file import KeyFile

            try:
                KeyFile(file, taken=[key.name for key in auth.keys])
            except ConfigError as err:
                fix = "write its path relative to this file; `manta keys create` makes one"
                self.problems += [(("auth", "keys_file"), f"{line}; {fix}") for line in str(err).splitlines()]
        return auth.model_copy(update={"keys_file": str(file)})

    def _absolute(self, path: str) -> Path:
        # Not resolve(): a symlink may be how weights are swapped, and its name is what the user knows.
        return Path(os.path.abspath(self._root / os.path.expanduser(path)))

    def _uri(self, uri: str) -> str:
        return uri if "://" in uri else str(self._absolute(uri))

    def _model(self, model: ModelConfig, path: FieldPath) -> ModelConfig:
        variants = (self._variant(v, (*path, "variants", i)) for i, v in enumerate(model.variants))
        # As of variants: to simulated engines a source is only a label.
        is_needed = any(variant.engine.kind != "simulated" for variant in model.variants)
        adapters = (self._adapter(a, (*path, "adapters", i), is_needed=is_needed) for i, a in enumerate(model.adapters))
        return model.model_copy(update={"variants": tuple(variants), "adapters": tuple(adapters)})

    def _adapter(self, adapter: AdapterConfig, path: FieldPath, *, is_needed: bool) -> AdapterConfig:
        if adapter.source is not None:
            source = self._adapter_source(adapter.source, (*path, "source"), is_needed)
            return adapter.model_copy(update={"source": source})
        versions = (
            v.model_copy(update={"source": self._adapter_source(v.source, (*path, "versions", i, "source"), is_needed)})
            for i, v in enumerate(adapter.versions)
        )
        return adapter.model_copy(update={"versions": tuple(versions)})

    def _adapter_source(self, source: str, path: FieldPath, is_needed: bool) -> str:
        if source_kind(source) != "folder":
            return source
        folder = self._absolute(source)
        if is_needed and self._check_files and not os.path.isfile(folder / ADAPTER_FILE):
            what = f"has no {ADAPTER_FILE}" if os.path.isdir(folder) else "does not exist"
            fix = f"name the folder that holds {ADAPTER_FILE} and the weights, as PEFT saves them"
            self.problems.append((path, f"the adapter folder {str(folder)!r} {what}; {fix}"))
        return str(folder)

    def _variant(self, variant: VariantConfig, path: FieldPath) -> VariantConfig:
        # The simulated engine opens no weights: its source is only a label.
        is_needed = variant.engine.kind != "simulated"
        source = self._source(variant.source, (*path, "source"), is_needed)
        return variant.model_copy(update={"source": source, "engine": self._engine(variant.engine, (*path, "engine"))})

    def _engine(self, engine: EngineConfig, path: FieldPath) -> EngineConfig:
        is_needed = engine.kind != "simulated"
        changes: dict[str, Any] = {}
        if (draft := engine.speculative) is not None and draft.model is not None:
            model = self._source(draft.model, (*path, "speculative", "model"), is_needed, fix=PUT_OR_HUB)
            changes["speculative"] = draft.model_copy(update={"model": model})
        if (tokenizer := engine.tokenizer) is not None and source_kind(tokenizer) == "folder":
            changes["tokenizer"] = str(folder := self._absolute(tokenizer))
            if is_needed and self._check_files and not os.path.isdir(folder):
                message = f"the tokenizer's folder {str(folder)!r} does not exist; put it there, or write a Hugging Face id"
                self.problems.append(((*path, "tokenizer"), message))
        if (template := engine.chat_template) is not None:
            changes["chat_template"] = self._chat_template(template, (*path, "chat_template"))
        return engine.model_copy(update=changes)

    def _chat_template(self, template: str, path: FieldPath) -> str:
        """Return the text, so that no node needs the file; a file that cannot be read is a problem."""
        if not is_template_file(template):
            return template
        file = self._absolute(template)
        if not self._check_files and not file.exists():
            return template
        try:
            return read_text(file, MAX_PROMPT_CHARACTERS)
        except ValueError as err:
            fix = "write its path relative to this file, or the template text itself"
            self.problems.append((path, f"the chat template {str(file)!r}: {err}; {fix}"))
            return template

    def _embedder(self, embedder: EmbedderConfig, path: FieldPath) -> EmbedderConfig:
        source = self._source(embedder.source, (*path, "source"), is_needed=True, fix=PUT_OR_HUB)
        return embedder.model_copy(update={"source": source})

    def _source(self, source: str, path: FieldPath, is_needed: bool, *, fix: str = PUT_WEIGHTS) -> str:
        if source_kind(source) != "folder":
            return source
        folder = self._absolute(source)
        if is_needed and self._check_files:
            if not os.path.isdir(folder):  # unlike Path.is_dir, False and no error where we may not look
                what = "is a file, not a model folder" if os.path.exists(folder) else "does not exist"
                self.problems.append((path, f"the model folder {str(folder)!r} {what}; {fix}"))
            elif not os.path.isfile(folder / "config.json"):
                fix = "name the folder that holds config.json and the weights"
                self.problems.append((path, f"the model folder {str(folder)!r} has no config.json; {fix}"))
        return str(folder)

    def _pipeline(self, pipeline: PipelineConfig, path: FieldPath) -> PipelineConfig:
        versions = (self._version(v, (*path, "versions", i)) for i, v in enumerate(pipeline.versions))
        return pipeline.model_copy(update={"versions": tuple(versions)})

    def _version(self, version: PipelineVersionConfig, path: FieldPath) -> PipelineVersionConfig:
        from serve_app import prompts  # Jinja2 costs 0.1 s of CPU that `manta --help` need not pay

        may_be_empty = version.no_passages == "answer"
        check = functools.partial(prompts.compile_prompt, may_be_empty=may_be_empty)
        changes: dict[str, Any] = {"prompt": self._prompt(version.prompt, (*path, "prompt"), check)}
        if (condense := version.condense) is not None and condense.prompt is not None:
            prompt = self._prompt(condense.prompt, (*path, "condense", "prompt"), prompts.compile_condense)
            changes["condense"] = condense.model_copy(update={"prompt": prompt})
        return version.model_copy(update=changes)

    def _prompt(self, prompt: str, path: FieldPath, check: Callable[[str], object]) -> str:
        """Return a template's text; a file that cannot be read is a problem, and so is a text that is no template."""
        if is_remote(prompt):
            text = self._remote_prompt(prompt, path)
            if text is None:
                return prompt
            prompt = text
        elif prompt.endswith(PROMPT_SUFFIX) and "\n" not in prompt:
            file = self._absolute(prompt)
            if not self._check_files and not file.exists():
                return prompt
            try:
                prompt = read_text(file, MAX_PROMPT_CHARACTERS)
            except ValueError as err:
                fix = "write its path relative to this file, or the template text itself"
                self.problems.append((path, f"the prompt file {str(file)!r}: {err}; {fix}"))
                return prompt
        return self._template(prompt, path, check)

    def _remote_prompt(self, uri: str, path: FieldPath) -> str | None:
        """Return an object's text; None where it is not to be read, or cannot be, which is a problem."""
        if not self._check_files:
            return None
        from serve_app.storage import texts

        try:
            if not uri.endswith(PROMPT_SUFFIX):
                raise ValueError(f"a template's name ends in {PROMPT_SUFFIX}")  # noqa: TRY301
            return texts.read_text(uri, MAX_PROMPT_CHARACTERS)
        except ValueError as err:
            fix = f"write s3://bucket/key{PROMPT_SUFFIX} of a template that can be read, or the template text itself"
            self.problems.append((path, f"the prompt {uri!r}: {err}; {fix}"))
            return None

    def _template(self, prompt: str, path: FieldPath, check: Callable[[str], object]) -> str:
        try:
            check(prompt)
        except ValueError as err:
            self.problems.append((path, str(err)))
        return prompt
