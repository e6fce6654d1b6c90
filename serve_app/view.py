"""RoutingView: the routing document compiled for quick look-ups."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from serve_app.config import ApiKeyConfig, PipelineConfig, PipelineVersionConfig
from serve_app.contracts import Hit
from serve_app.credentials import KeyRing, WallClock, credential, wall_clock
from serve_app.errors import Forbidden, UnknownModel
from serve_app.prompts import CONDENSE, Passage, Turn, compile_condense, compile_prompt, render_condense, render_prompt
from serve_app.rollout.document import RoutedAdapter, RoutedModel, RoutingDocument, declared_split, parts
from serve_app.rollout.table import Split, TrafficTable, pick

if TYPE_CHECKING:
    from jinja2 import Template

# The caller where no keys are configured. No key has this hash.
ANONYMOUS = ApiKeyConfig(name="anonymous", hash=f"sha256:{'0' * 32}:{'0' * 64}", admin=True)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The compiled templates of a pipeline's version."""

    template: Template
    condense: Template

    def render(self, question: str, hits: Sequence[Hit]) -> str:
        """Return the user message that asks ``question`` over ``hits``."""
        numbered = [Passage(i, _title(hit), hit.chunk.text) for i, hit in enumerate(hits, start=1)]
        return render_prompt(self.template, question, numbered)

    def render_condense(self, question: str, history: Sequence[Turn]) -> str:
        """Return the message that asks for the conversation's search query."""
        return render_condense(self.condense, question, history)


class Callee(NamedTuple):
    """What a request names: a model, or an adapter of it."""

    model: RoutedModel
    adapter: RoutedAdapter | None = None


def _prompt(version: PipelineVersionConfig) -> Prompt:
    template = compile_prompt(version.prompt, may_be_empty=version.no_passages == "answer")
    condense = version.condense.prompt if version.condense is not None else None
    return Prompt(template, compile_condense(condense or CONDENSE))


def _title(hit: Hit) -> str:
    return " > ".join((hit.chunk.title, *hit.chunk.headings[-1:]))


class RoutingView:
    """One version of the routing document; replaced as a whole when a new one arrives.

    Raises:
        ValueError: the document cannot be put in force; the message says why.
    """

    def __init__(self, document: RoutingDocument, *, now: WallClock = wall_clock) -> None:
        self.document = document
        self._now = now
        self.models = {m.name: m for m in document.models}
        self.adapters = {a.name: Callee(m, a) for m in document.models for a in m.adapters}
        self.pipelines = {p.name: p for p in document.pipelines}
        self.embedders = frozenset(document.embedders)
        self._keys = KeyRing(document.auth.keys, now=now)
        self.table = TrafficTable(splits=tuple(map(declared_split, parts(document))))
        versions = [(p.name, v) for p in document.pipelines for v in p.versions]
        self._prompts = {(name, v.name): _prompt(v) for name, v in versions}

    def with_table(self, table: TrafficTable) -> RoutingView:
        """Return the same view under another traffic table. Raises ValueError: it is not of what this document serves."""
        for split in self.table.splits:
            told = table.by_name.get(split.name)
            if told is None or told.weights.keys() != split.weights.keys():
                raise ValueError(f"the traffic table says nothing of {split.name!r} that fits its variants")
        view = copy.copy(self)
        view.table = table
        return view

    def use_key_file(self, keys: Sequence[ApiKeyConfig]) -> None:
        """Put these keys in force beside those of the document; until then a file of keys lets nobody in."""
        self._keys = KeyRing((*keys, *self.document.auth.keys), now=self._now)

    def authenticate(self, authorization: str | None, x_api_key: str | None = None) -> ApiKeyConfig:
        """Return who calls, by these two headers.

        Raises:
            Unauthenticated: keys are asked for, and this is none of them or has expired.
        """
        return self._keys.find(credential(authorization, x_api_key)) if self.document.auth.is_on else ANONYMOUS

    def authorize(self, caller: ApiKeyConfig, name: str) -> None:
        """Raise UnknownModel or Forbidden unless the caller may use this model, adapter, pipeline or embedder."""
        is_model = name in self.models or name in self.adapters
        if not is_model and name not in self.pipelines and name not in self.embedders:
            raise UnknownModel(name)
        if not self.may_use(caller, name):
            raise Forbidden(f"this API key may not use model {name!r}", param="model")

    def authorize_admin(self, caller: ApiKeyConfig) -> None:
        """Raise Forbidden unless the caller may see how the platform is doing, and command rollouts."""
        if not caller.admin:
            raise Forbidden("this API key may not read the platform's status or command rollouts; it needs `admin: true`")

    def callee(self, name: str) -> Callee | None:
        """Return the model, or the adapter with its model, of this name, or None."""
        model = self.models.get(name)
        return self.adapters.get(name) if model is None else Callee(model)

    def may_use(self, caller: ApiKeyConfig, name: str) -> bool:
        """Whether the caller's key covers the name: an adapter's by itself, for it may hold what its model does not."""
        return caller.models is None or name in caller.models

    def may_search(self, caller: ApiKeyConfig, collection: str) -> bool:
        """Whether the caller's key covers a configured collection, or a vector store of its tenant."""
        return caller.collections is None or collection in caller.collections

    def split(self, name: str) -> Split:
        """Return how the traffic of a model, adapter or pipeline is shared now."""
        return self.table.by_name[name]

    def variant(self, model: RoutedModel, affinity: str) -> str:
        """Return the variant that owns this conversation."""
        return pick(self.split(model.name).ranges, affinity)

    def adapter_version(self, adapter: RoutedAdapter, affinity: str) -> str:
        """Return the adapter's version that owns this conversation."""
        # Salted: by the same bucket, a canary of the adapter would be used by the conversations of the model's canary, and
        # neither could be told from the other.
        return pick(self.split(adapter.name).ranges, f"{affinity}/{adapter.name}")

    def version(self, pipeline: PipelineConfig, affinity: str) -> tuple[PipelineVersionConfig, Prompt]:
        """Return the pipeline version that owns this conversation, with its prompt."""
        name = pick(self.split(pipeline.name).ranges, affinity)
        version = next(v for v in pipeline.versions if v.name == name)
        return version, self._prompts[pipeline.name, name]
